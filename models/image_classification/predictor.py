"""A program behind its own preprocessing: the bytes of a photo in, its label and probabilities out. Needs no torch."""

from pathlib import Path
from typing import Any

from models.common.image.decoding import decode, open_image
from models.common.program.program import Program, softmax


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
        """`label`, `confidence` (its probability) and `probabilities` by label, the most likely first.

        Raises BadExampleError saying why the bytes cannot be used as a picture.
        """
        pixels = decode(open_image(image, self._max_pixels), self._size)
        logits = self._program.run(images=pixels[None])["logits"]
        chances = zip(self.labels, softmax(logits)[0].tolist(), strict=True)
        ranked = {label: round(chance, 6) for label, chance in sorted(chances, key=lambda pair: -pair[1])}
        label = next(iter(ranked))
        return {"label": label, "confidence": ranked[label], "probabilities": ranked}
