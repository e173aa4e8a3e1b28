"""A program behind its own preprocessing: the bytes of a photo in, the objects in it out. Needs no torch."""

from pathlib import Path
from typing import Any

from models.common.image.letterbox import Canvas
from models.common.program.program import Program
from models.instance_segmentation.objects import described, found


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one picture, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.labels = self._program.spec.labels
        self._canvas = Canvas.of(self._program.spec.input)
        self._threshold = float(self._program.spec.input["score_threshold"])

    def predict(self, image: bytes) -> dict[str, Any]:
        """`width` and `height` of the picture as shown, `threshold`, and `objects` as objects.py describes them.

        The surest first, none below the threshold. Raises BadExampleError saying why the bytes are no picture.
        """
        pixels, (width, height) = self._canvas.laid(image)
        seen = found(self._program.run(images=pixels[None]), self._canvas, width, height)
        objects = described(seen, self.labels, self._threshold)
        return {"width": width, "height": height, "threshold": self._threshold, "objects": objects}
