"""A detector's program behind its own preprocessing: the bytes of a photo in, the objects in it out. No torch."""

from pathlib import Path
from typing import Any

from models.common.image.letterbox import Canvas
from models.common.objects.detections import describe_detections, read_detections
from models.common.objects.matching import expected_objects, objects_differ
from models.common.program.program import Program
from models.common.program.service import Service, one_file


class ObjectPredictor:
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
        """Label, score and box of each object in one photo (JPEG, PNG, WebP, BMP, TIFF, GIF), the surest first.

        `width` and `height` of the picture as shown, `threshold`, below which no object is answered, and `objects`:
        boxes are x1, y1, x2, y2 in px; from a network of masks come polygons and run lengths, too.
        Raises BadExampleError saying why the bytes are no picture.
        """
        pixels, (width, height) = self._canvas.letterbox(image)
        detections = read_detections(self._program.run(images=pixels[None]), self._canvas, width, height)
        objects = describe_detections(detections, self.labels, self._threshold)
        return {"width": width, "height": height, "threshold": self._threshold, "objects": objects}


OBJECT_SERVICE = Service(ObjectPredictor, {"image": "image/*"}, one_file("image"), expected_objects, objects_differ)
