"""Annotated pictures of a manifest as arrays: each on its canvas, with the boxes that are to be learnt."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.image.letterbox import Canvas
from models.common.objects.annotations import Annotation
from models.common.objects.dataset import annotations, canvases


class BoxPictures:
    """Pictures and the boxes in them, by position."""

    def __init__(
        self, manifest: pd.DataFrame, batches: Path, home: Path, canvas: Canvas, labels: tuple[str, ...]
    ) -> None:
        self.annotations = annotations(manifest, batches)
        self._pixels = canvases(manifest, batches, home, canvas)
        self._boxes, self._classes = padded_boxes(self.annotations, labels, canvas)

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """Pictures (N, H, W, 3), boxes (N, M, 4) in px of the canvas, classes (N, M), -1 where there is no box."""
        return self._pixels.take(positions), self._boxes[positions], self._classes[positions]


def padded_boxes(
    annotations: list[Annotation], labels: tuple[str, ...], canvas: Canvas
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, M, 4) boxes on the canvas and (N, M) classes, -1 where there is none; M is the most that one picture has.

    Without the objects that are not to be learnt.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    max_boxes = max((len(each.labels) for each in annotations), default=0)
    boxes = np.zeros((len(annotations), max_boxes, 4), np.float32)
    classes = np.full((len(annotations), max_boxes), -1, np.int64)
    for index, each in enumerate(annotations):
        counted = np.flatnonzero(~each.ignored)
        boxes[index, : len(counted)] = each.boxes[counted] * canvas.scale(each.width, each.height)
        classes[index, : len(counted)] = [index_of[each.labels[item]] for item in counted]
    return boxes, classes
