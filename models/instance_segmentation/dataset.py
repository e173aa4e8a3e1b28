"""Annotated pictures of a manifest as arrays: each on its canvas, with the masks that are to be learnt."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from models.common.image.letterbox import Canvas
from models.common.objects.annotations import Annotation
from models.common.objects.dataset import annotations, canvases
from models.common.objects.masks import Rle


@dataclass(frozen=True)
class PackedMask:
    """The mask of an object on the canvas, packed: the part that it covers, and where that is."""

    bits: NDArray[np.uint8]
    shape: tuple[int, int]
    left: int
    top: int

    @staticmethod
    def of(mask: Rle, canvas: Canvas) -> "PackedMask":
        """A mask as large as its picture, scaled as the picture is."""
        full = Image.fromarray(mask.array().astype(np.uint8) * 255)
        scaled = np.asarray(full.resize(canvas.resized_size(mask.width, mask.height), Image.Resampling.BILINEAR)) >= 128
        rows, columns = np.flatnonzero(scaled.any(axis=1)), np.flatnonzero(scaled.any(axis=0))
        if not len(rows):
            return PackedMask(np.zeros(0, np.uint8), (0, 0), 0, 0)
        crop = scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return PackedMask(np.packbits(crop), crop.shape, int(columns[0]), int(rows[0]))

    def draw(self, plane: NDArray[np.uint8]) -> None:
        """Onto a plane of zeros as large as the canvas."""
        height, width = self.shape
        crop = np.unpackbits(self.bits, count=height * width).reshape(self.shape)
        plane[self.top : self.top + height, self.left : self.left + width] = crop


class MaskPictures:
    """Pictures and the masks of the objects in them, by position."""

    def __init__(
        self, manifest: pd.DataFrame, batches: Path, home: Path, canvas: Canvas, labels: tuple[str, ...]
    ) -> None:
        self.annotations = annotations(manifest, batches)
        self._pixels, self._canvas = canvases(manifest, batches, home, canvas), canvas
        index = {label: position for position, label in enumerate(labels)}
        self._objects = [_objects_to_learn(each, index, canvas) for each in self.annotations]

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Pictures (N, H, W, 3), masks (N, M, H, W) of 0 and 1, classes (N, M), -1 where there is no object."""
        objects = [self._objects[position] for position in positions]
        max_objects = max(len(each) for each in objects)
        masks = np.zeros((len(positions), max_objects, self._canvas.height, self._canvas.width), np.uint8)
        classes = np.full((len(positions), max_objects), -1, np.int64)
        for position, each in enumerate(objects):
            for index, (number, mask) in enumerate(each):
                mask.draw(masks[position, index])
                classes[position, index] = number
        return self._pixels.take(positions), masks, classes


def _objects_to_learn(annotation: Annotation, index: dict[str, int], canvas: Canvas) -> list[tuple[int, PackedMask]]:
    """Class and mask of each object that is to be learnt."""
    objects = zip(annotation.labels, annotation.masks, annotation.ignored, strict=True)
    return [(index[label], PackedMask.of(mask, canvas)) for label, mask, ignored in objects if mask and not ignored]
