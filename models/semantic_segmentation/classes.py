"""The classes that a segmenter learns, by what the masks of a manifest hold, and how much of each there is."""

import json
from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.class_counts import read_counts
from models.common.errors import UserError
from models.semantic_segmentation.params import SegmentationData

MOST = 250  # classes that the bytes of a class map have room for, beside void


def learnt_classes(manifest: pd.DataFrame, data: SegmentationData) -> tuple[str, ...]:
    """The classes, in the order of their numbers in the program: `data.labels`, or what training masks hold, sorted.

    Raises UserError for fewer than two classes, a class in fewer than `data.min_per_class` training masks, a class
    that only validation has, and an empty validation split.
    """
    counts = {split: _masks_with(manifest[manifest["split"] == split], data) for split in ("train", "val")}
    labels = data.labels or tuple(sorted(counts["train"]))
    if not 2 <= len(labels) <= MOST:
        found = f"only '{labels[0]}'" if len(labels) == 1 else f"{len(labels)} classes"
        raise UserError(f"Training needs 2 to {MOST} classes; the training masks hold {found}, void ones apart")
    scarce = [
        f"'{label}' is in {counts['train'][label]}" for label in labels if counts["train"][label] < data.min_per_class
    ]
    if scarce:
        raise UserError(
            f"Too few training masks: {', '.join(scarce[:5])}; data.min_per_class is {data.min_per_class}."
            " Add more, or make the class void: data.void"
        )
    strange = sorted({*counts["train"], *counts["val"]} - set(labels))
    if strange:
        raise UserError(
            f"Class '{strange[0]}' is in the masks but in no training mask or not in data.labels ({', '.join(labels)})."
            " Add training masks of it, or make it void: data.void"
        )
    if not (manifest["split"] == "val").any():
        raise UserError(
            "The validation split is empty, so no epoch can be told from another."
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


def _masks_with(manifest: pd.DataFrame, data: SegmentationData) -> Counter[str]:
    """Class -> masks that hold it. A class that became void after its batch was added does not count."""
    return Counter(name for text in manifest["classes"] for name in read_counts(text) if not data.is_void(name))
