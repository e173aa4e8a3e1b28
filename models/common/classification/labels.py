"""The classes that a classifier learns, and whether there is enough to learn them from."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.errors import UserError
from models.common.params import DataParams


def class_labels(manifest: pd.DataFrame, data: DataParams) -> tuple[str, ...]:
    """The labels, in the order of the logits: `data.labels`, or whatever the training split holds, sorted.

    Raises UserError for a single class, a class with fewer than `data.min_per_class` training examples, an example
    whose label is not among the classes, and an empty validation split.
    """
    counts = manifest.loc[manifest["split"] == "train", "label"].value_counts()
    labels = data.labels or tuple(sorted(str(label) for label in counts.index))
    if len(labels) < 2:
        found = f"only '{labels[0]}'" if labels else "none"
        raise UserError(f"Training needs at least two classes; the training split holds {found}. Add more data")
    scarce = [label for label in labels if counts.get(label, 0) < data.min_per_class]
    if scarce:
        raise UserError(
            f"Too few training examples: {_counted(scarce, counts)}; data.min_per_class is {data.min_per_class}."
            " Add more, or remove the class"
        )
    _check_validation(manifest, labels)
    return labels


def class_numbers(manifest: pd.DataFrame, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Each row's place among `labels`."""
    number = {label: place for place, label in enumerate(labels)}
    return np.asarray(manifest["label"].map(number), np.int64)


def _check_validation(manifest: pd.DataFrame, labels: tuple[str, ...]) -> None:
    learnt = manifest[manifest["split"].isin(["train", "val"])]
    strange = sorted(set(learnt["label"]) - set(labels))
    if strange:
        raise UserError(
            f"Label '{strange[0]}' is in the data but has no training example or is not in data.labels"
            f" ({', '.join(labels)}). Add training examples of it, or remove it"
        )
    if not (manifest["split"] == "val").any():
        raise UserError(
            "The validation split is empty, so the best epoch cannot be selected."
            " Raise data.splits.val before adding data, or add some with --split val"
        )


def _counted(labels: list[str], counts: pd.Series) -> str:
    return ", ".join(f"'{label}' has {counts.get(label, 0)}" for label in labels[:5])
