"""A program behind its own preprocessing: the bytes of a photo in, its label and probabilities out. Needs no torch."""

from pathlib import Path
from typing import Any

from models.common.classification.answers import class_answer
from models.common.program.program import Program
from models.common.program.service import Service, one_file
from models.image_classification.preprocessing import square


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one picture, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.labels = self._program.spec.labels
        self._size = int(self._program.spec.input["size"])
        self._max_pixels = int(self._program.spec.input["max_pixels"])

    def predict(self, image: bytes) -> dict[str, Any]:
        """Label, confidence and probabilities of one photo (JPEG, PNG, WebP, BMP, TIFF, GIF), the likeliest first.

        Raises BadExampleError saying why the bytes cannot be used as a picture.
        """
        pixels = square(image, self._size, self._max_pixels)
        return class_answer(self.labels, self._program.run(images=pixels[None])["logits"][0])


SERVICE = Service(Predictor, {"image": "image/*"}, one_file("image"))
