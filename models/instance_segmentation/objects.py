"""From a program's outputs to objects in the photo, each with the pixels that it covers. Needs no torch.

Training's validation, evaluation and the service all call this, so none can differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.image.letterbox import Canvas
from models.common.objects.masks import Rle, from_crop, outlines, paste

OUTPUTS = ("boxes", "scores", "labels", "masks")  # of the graph, in order
PLACES = 4  # digits of what is answered


@dataclass(frozen=True)
class Part:
    """The pixels of one object: `crop` at (left, top), nothing elsewhere."""

    crop: NDArray[np.bool_]
    left: int
    top: int


@dataclass(frozen=True)
class Found:
    """What a program found in a picture of width x height px, the highest score first."""

    width: int
    height: int
    boxes: NDArray[np.float32]  # (N, 4): x1, y1, x2, y2 in px of the picture
    scores: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int64]  # (N,): places among the program's labels
    parts: tuple[Part, ...]

    def rle(self, place: int) -> Rle:
        """The mask of one object."""
        part = self.parts[place]
        return from_crop(part.crop, part.left, part.top, self.height, self.width)


def found(outputs: dict[str, NDArray[Any]], canvas: Canvas, width: int, height: int) -> Found:
    """A program's OUTPUTS for one picture of that size. Objects that lie in the grey edge alone are dropped."""
    boxes = canvas.lifted(outputs["boxes"], width, height)
    full = outputs["boxes"] / canvas.scale(width, height)  # masks are drawn into boxes before these are cut off
    real = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    order = real[np.argsort(-outputs["scores"][real], kind="stable")]
    parts = tuple(Part(*paste(outputs["masks"][place], full[place], width, height)) for place in order)
    return Found(width, height, boxes[order], outputs["scores"][order], outputs["labels"][order], parts)


def described(seen: Found, labels: tuple[str, ...], threshold: float) -> list[dict[str, Any]]:
    """The objects from `threshold` on, as they are answered.

    label, score, box (x1, y1, x2, y2 in px), polygons (each a list of x, y, x, y, … in px; filled by the even-odd rule
    they are the mask exactly) and mask, COCO's run lengths.
    """
    return [
        {
            "label": labels[seen.classes[place]],
            "score": round(float(seen.scores[place]), 6),
            "box": [round(float(edge), PLACES) for edge in seen.boxes[place]],
            "polygons": _polygons(seen.parts[place]),
            "mask": seen.rle(place).coco,
        }
        for place in range(len(seen.scores))
        if seen.scores[place] >= threshold
    ]


def _polygons(part: Part) -> list[list[int]]:
    return [[edge for corner in line for edge in corner] for line in outlines(part.crop, part.left, part.top)]
