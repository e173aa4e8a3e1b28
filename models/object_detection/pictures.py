"""From the bytes of a photo to the uint8 canvas that a program takes, and from its boxes back. Needs no torch.

The training cache, evaluation and the service all call these functions, so none can differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.image.letterbox import Canvas

Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What a program found in one picture, the highest score first: boxes in px of the picture as x1, y1, x2, y2."""

    boxes: Boxes  # (N, 4)
    scores: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int64]  # (N,): places among the program's labels


def found(outputs: dict[str, NDArray[Any]], canvas: Canvas, width: int, height: int) -> Found:
    """A program's outputs for one picture of that size. Boxes that lie in the grey edge alone are dropped."""
    boxes = canvas.lifted(outputs["boxes"], width, height)
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.argsort(-outputs["scores"][real], kind="stable")
    return Found(boxes[real][order], outputs["scores"][real][order], outputs["labels"][real][order])
