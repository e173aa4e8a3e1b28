"""From a detector's outputs to objects in the photo, with the pixels that they cover where it gives masks. No torch.

Training's validation, evaluation and the service all call this, so none can differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.image.letterbox import Canvas
from models.common.objects.masks import Rle, from_crop, outlines, paste

DIGITS = 4  # of a coordinate that is answered, px


@dataclass(frozen=True)
class MaskCrop:
    """The pixels of one object: `crop` at (left, top), nothing elsewhere."""

    crop: NDArray[np.bool_]
    left: int
    top: int


@dataclass(frozen=True)
class Detections:
    """What a program found in a picture of width x height px, the highest score first."""

    width: int
    height: int
    boxes: NDArray[np.float32]  # (N, 4): x1, y1, x2, y2 in px of the picture
    scores: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int64]  # (N,): places among the program's labels
    masks: tuple[MaskCrop, ...] | None = None  # None: the program gives boxes alone

    def rle(self, index: int) -> Rle:
        """The mask of one object."""
        assert self.masks is not None
        mask = self.masks[index]
        return from_crop(mask.crop, mask.left, mask.top, self.height, self.width)


def read_detections(outputs: dict[str, NDArray[Any]], canvas: Canvas, width: int, height: int) -> Detections:
    """A program's outputs for one picture of that size. Objects that lie in the grey edge alone are dropped.

    outputs: boxes (D, 4) in px of the canvas, scores (D,), labels (D,) and perhaps masks (D, S, S) of probabilities.
    """
    boxes = canvas.to_image_coordinates(outputs["boxes"], width, height)
    inside = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    order = inside[np.argsort(-outputs["scores"][inside], kind="stable")]
    masks = _masks(outputs, order, canvas, width, height) if "masks" in outputs else None
    return Detections(width, height, boxes[order], outputs["scores"][order], outputs["labels"][order], masks)


def _masks(
    outputs: dict[str, NDArray[Any]], order: NDArray[np.int64], canvas: Canvas, width: int, height: int
) -> tuple[MaskCrop, ...]:
    whole = outputs["boxes"] / canvas.scale(width, height)  # a mask belongs to its box before that is cut off
    return tuple(MaskCrop(*paste(outputs["masks"][index], whole[index], width, height)) for index in order)


def describe_detections(detections: Detections, labels: tuple[str, ...], threshold: float) -> list[dict[str, Any]]:
    """The objects from `threshold` on, as they are answered.

    label, score, box (x1, y1, x2, y2 in px). Where there are masks also polygons (each a list of x, y, x, y, … in px;
    filled by the even-odd rule they are the mask exactly) and mask, COCO's run lengths.
    """
    return [
        {
            "label": labels[detections.classes[index]],
            "score": round(float(detections.scores[index]), 6),
            "box": [round(float(edge), DIGITS) for edge in detections.boxes[index]],
        }
        | _describe_mask(detections, index)
        for index in np.flatnonzero(detections.scores.astype(float) >= threshold).tolist()
    ]


def _describe_mask(detections: Detections, index: int) -> dict[str, Any]:
    if detections.masks is None:
        return {}
    mask = detections.masks[index]
    lines = outlines(mask.crop, mask.left, mask.top)
    polygons = [[edge for corner in line for edge in corner] for line in lines]
    return {"polygons": polygons, "mask": detections.rle(index).coco}
