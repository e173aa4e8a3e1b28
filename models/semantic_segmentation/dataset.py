"""Pictures and masks of a manifest as uint8 arrays of one size, decoded once, for training and evaluation."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.decoded_cache import Decoded, decoded
from models.semantic_segmentation import masks, pictures
from models.semantic_segmentation.params import SegmentationData


def photos(manifest: pd.DataFrame, batches: Path, home: Path, size: tuple[int, int], max_pixels: int) -> Decoded:
    """The manifest's pictures, (height, width, 3) uint8 RGB each, by position. UserError where one does not decode."""
    width, height = size
    convert = functools.partial(pictures.stretched, width=width, height=height, max_pixels=max_pixels)
    return decoded(batches, manifest, home, f"stretched{width}x{height}", (height, width, 3), convert)


def class_maps(
    manifest: pd.DataFrame, batches: Path, home: Path, labels: tuple[str, ...], data: SegmentationData
) -> Decoded:
    """The manifest's masks, (height, width) uint8 places among `labels` each, NO_CLASS where void, by position."""
    width, height = data.size
    convert = functools.partial(class_map, labels=labels, data=data)
    return decoded(batches, manifest, home, f"mask{width}x{height}", (height, width), convert, "target")


def class_map(target: bytes, labels: tuple[str, ...], data: SegmentationData) -> NDArray[np.uint8]:
    """(height, width) uint8 places among `labels` of one mask, as large as the program's input."""
    return masks.stretched(places(target, labels, data), *data.size)


def places(target: bytes, labels: tuple[str, ...], data: SegmentationData) -> NDArray[np.uint8]:
    """(H, W) uint8 places among `labels` of one mask, of its own size; NO_CLASS where it is void."""
    names = masks.names_in(target)
    void = [data.is_void(names[number] if number < len(names) else "", number) for number in range(256)]
    return masks.place_table(names, labels, void)[masks.read_mask(target, data.max_pixels)]
