"""Pictures and masks of a manifest as uint8 arrays of one size, decoded once, and the classes that the masks hold."""

import functools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.class_counts import read_counts
from models.common.data.decoded_cache import Decoded, decoded
from models.common.errors import UserError
from models.common.segmentation.class_maps import (
    ClassMap,
    decode_mask,
    label_indices,
    read_class_names,
    resize_class_map,
)
from models.semantic_segmentation.params import SegmentationData
from models.semantic_segmentation.preprocessing import resized

MAX_CLASSES = 250  # classes that the bytes of a class map have room for, beside void


def photos(manifest: pd.DataFrame, batches: Path, home: Path, size: tuple[int, int], max_pixels: int) -> Decoded:
    """The manifest's pictures, (height, width, 3) uint8 RGB each, by position. UserError where one does not decode."""
    width, height = size
    convert = functools.partial(resized, width=width, height=height, max_pixels=max_pixels)
    return decoded(batches, manifest, home, f"rgb{width}x{height}", (height, width, 3), convert)


def class_maps(
    manifest: pd.DataFrame, batches: Path, home: Path, labels: tuple[str, ...], data: SegmentationData
) -> Decoded:
    """The manifest's masks, (height, width) uint8 indices in `labels` each, IGNORE_INDEX where void, by position."""
    width, height = data.size
    convert = functools.partial(resized_class_map, labels=labels, data=data)
    return decoded(batches, manifest, home, f"classes{width}x{height}", (height, width), convert, "target")


def resized_class_map(target: bytes, labels: tuple[str, ...], data: SegmentationData) -> ClassMap:
    """(height, width) uint8 indices in `labels` of one mask, as large as the program's input."""
    return resize_class_map(class_map(target, labels, data), *data.size)


def class_map(target: bytes, labels: tuple[str, ...], data: SegmentationData) -> ClassMap:
    """(H, W) uint8 indices in `labels` of one mask, of its own size; IGNORE_INDEX where it is void."""
    names = read_class_names(target)
    void = [data.is_void(names[number] if number < len(names) else "", number) for number in range(256)]
    return label_indices(names, labels, void)[decode_mask(target, data.max_pixels)]


def mask_labels(manifest: pd.DataFrame, data: SegmentationData) -> tuple[str, ...]:
    """The classes, in the order of their numbers in the program: `data.labels`, or what training masks hold, sorted.

    Raises UserError for fewer than two classes, a class in fewer than `data.min_per_class` training masks, a class
    that only validation has, and an empty validation split.
    """
    counts = {split: _masks_by_class(manifest[manifest["split"] == split], data) for split in ("train", "val")}
    labels = data.labels or tuple(sorted(counts["train"]))
    if not 2 <= len(labels) <= MAX_CLASSES:
        present = f"only '{labels[0]}'" if len(labels) == 1 else f"{len(labels)} classes"
        raise UserError(
            f"Training needs 2 to {MAX_CLASSES} classes; the training masks hold {present}, void ones apart"
        )
    too_few = [
        f"'{label}' is in {counts['train'][label]}" for label in labels if counts["train"][label] < data.min_per_class
    ]
    if too_few:
        raise UserError(
            f"Too few training masks: {', '.join(too_few[:5])}; data.min_per_class is {data.min_per_class}."
            " Add more, or make the class void: data.void"
        )
    unknown = sorted({*counts["train"], *counts["val"]} - set(labels))
    if unknown:
        raise UserError(
            f"Class '{unknown[0]}' is in the masks but in no training mask or not in data.labels ({', '.join(labels)})."
            " Add training masks of it, or make it void: data.void"
        )
    if not (manifest["split"] == "val").any():
        raise UserError(
            "The validation split is empty, so the best epoch cannot be selected."
            " Raise data.splits.val before adding data, or add some with --split val"
        )
    return labels


def class_shares(manifest: pd.DataFrame, labels: tuple[str, ...]) -> NDArray[np.float64]:
    """Of the training pixels that are not void, the share of each class; every picture counts the same."""
    rows = manifest.loc[manifest["split"] == "train", "shares"]
    total: Counter[str] = Counter()
    for text in rows:
        total.update(json.loads(text))
    shares = np.array([total[label] for label in labels], float)
    return np.asarray(shares / max(shares.sum(), 1e-12))


def _masks_by_class(manifest: pd.DataFrame, data: SegmentationData) -> Counter[str]:
    """Class -> masks that hold it. A class that became void after its batch was added does not count."""
    return Counter(name for text in manifest["classes"] for name in read_counts(text) if not data.is_void(name))
