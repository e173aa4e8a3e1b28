"""What must hold for the data of every kind. A kind adds its own in `expectations`.

Some checks are about classes, groups or batches, not rows. They look at a column that is derived here: each row then
carries what its class, group or batch comes to, and a failing check names the rows that it is about.
"""

from collections import Counter

import numpy as np
import pandas as pd

from models.common.data.batches import COMMON_COLUMNS, SPLITS
from models.common.data.class_counts import read_counts
from models.common.data.drift import batch_drift
from models.common.kind import Expectation, Truth
from models.common.params import DataParams

MOST_UNEQUAL = 20  # times that the largest class may outnumber another before it is told
BETWEEN = "ExpectColumnValuesToBeBetween"
IN_SET = "ExpectColumnValuesToBeInSet"
TOLD: dict[Truth, str] = {"class": "label", "text": "text", "target": "target"}


def schema_expectation(columns: list[str]) -> Expectation:
    """Every column is there; without it, no other check means anything."""
    return Expectation(
        name="every column is there",
        expectation="ExpectTableColumnsToMatchSet",
        kwargs={"column_set": [*COMMON_COLUMNS, *columns], "exact_match": False},
        severity="block",
        remedy="every batch has the columns of its kind; remove the batch that does not and add it again",
    )


def common_expectations(data: DataParams, truth: Truth, manifest: pd.DataFrame) -> list[Expectation]:
    """The checks that hold for every kind, and those of its truth. Adds the columns that they look at to `manifest`."""
    _derive(manifest, truth)
    checks = [*_rows(data, truth), *_leaks(truth), *_splits()]
    if truth == "class":
        _derive_classes(manifest)
        return [*checks, *_classes(data), *_spread(data)]
    if truth == "target":
        _derive_things(manifest, data)
        return [*checks, *_things(data)]
    return checks


def _derive(manifest: pd.DataFrame, truth: Truth) -> None:
    split = manifest["split"]
    said = manifest["target_id" if truth == "target" else "label"]
    manifest["labels_of_id"] = said.groupby(manifest["id"]).transform("nunique")
    manifest["splits_of_group"] = split.groupby(manifest["group"]).transform("nunique")


def _derive_things(manifest: pd.DataFrame, data: DataParams) -> None:
    """What each example's rarest class comes to, and which of its classes are not of the closed set."""
    found = [read_counts(text) for text in manifest["classes"]]
    totals: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for split, counts in zip(manifest["split"], found, strict=True):
        totals.setdefault(split, Counter()).update(counts)
    for name in ("train", "test"):
        least = [min((totals[name][label] for label in counts), default=None) for counts in found]
        manifest[f"{name}_things_of_rarest_class"] = pd.array(least, dtype="Int64").to_numpy(float, na_value=np.nan)
    closed = set(data.labels) if data.labels is not None else None
    manifest["unknown_classes"] = [
        ", ".join(sorted(set(counts) - closed)) if closed is not None else "" for counts in found
    ]


def _derive_classes(manifest: pd.DataFrame) -> None:
    label, split = manifest["label"], manifest["split"]
    for name in ("train", "test"):
        manifest[f"{name}_examples_of_class"] = (split == name).groupby(label).transform("sum")
    sizes = label.groupby(label).transform("size")
    manifest["times_smaller_than_largest_class"] = sizes.max() / sizes
    manifest["label_drift"] = batch_drift(manifest["batch"], label)


def _rows(data: DataParams, truth: Truth) -> list[Expectation]:
    told = "target_id" if truth == "target" else "label"
    checks = [
        Expectation(
            name="ids are content hashes",
            expectation="ExpectColumnValuesToMatchRegex",
            kwargs={"column": "id", "regex": "^[0-9a-f]{64}$"},
            severity="block",
            remedy="an id is the SHA-256 of an example's bytes; this index was not written by `ratchet add`",
        ),
        Expectation(
            name=f"every example has a {TOLD[truth]}",
            expectation="ExpectColumnValuesToNotBeNull",
            kwargs={"column": told},
            severity="block",
            remedy=f"an example without a {TOLD[truth]} cannot be learnt; remove its batch and add it again with it",
        ),
        Expectation(
            name="splits are train, val or test",
            expectation=IN_SET,
            kwargs={"column": "split", "value_set": list(SPLITS)},
            severity="block",
            remedy="an example is in one of the three splits",
        ),
    ]
    if truth == "class" and data.labels is not None:
        checks.append(
            Expectation(
                name="labels are of the closed set",
                expectation=IN_SET,
                kwargs={"column": "label", "value_set": list(data.labels)},
                severity="block",
                remedy="data.labels lists all labels there may be; extend it or remove the batch",
            )
        )
    return checks


def _leaks(truth: Truth) -> list[Expectation]:
    return [
        Expectation(
            name=f"one {TOLD[truth]} per example",
            expectation=BETWEEN,
            kwargs={"column": "labels_of_id", "min_value": 1, "max_value": 1},
            severity="block",
            remedy=f"the same bytes have two {TOLD[truth]}s in two batches; remove the batch that is wrong",
        ),
        Expectation(
            name="no group in two splits",
            expectation=BETWEEN,
            kwargs={"column": "splits_of_group", "min_value": 1, "max_value": 1},
            severity="block",
            remedy="a group (or the same bytes) in two splits makes the test a memory test; remove one of its batches",
        ),
        Expectation(
            name="no example twice",
            expectation="ExpectColumnValuesToBeUnique",
            kwargs={"column": "id"},
            severity="warn",
            remedy="the same bytes are in two batches, as when two clones added them at once; remove one of them",
        ),
    ]


def _splits() -> list[Expectation]:
    return [
        Expectation(
            name="something to train on and to test with",
            expectation="ExpectColumnDistinctValuesToContainSet",
            kwargs={"column": "split", "value_set": ["train", "test"]},
            severity="block",
            remedy="both splits need examples; add some with --split test, or set data.splits.test",
        ),
        Expectation(
            name="something to stop training by",
            expectation="ExpectColumnDistinctValuesToContainSet",
            kwargs={"column": "split", "value_set": ["val"]},
            severity="warn",
            remedy="without val examples a share of the training ones (data.splits.val) tells which epoch is best;"
            " to choose them yourself, add some: --split val",
        ),
    ]


def _things(data: DataParams) -> list[Expectation]:
    """Of classes that are inside targets."""
    return [
        Expectation(
            name="classes are of the closed set",
            expectation=IN_SET,
            kwargs={"column": "unknown_classes", "value_set": [""]},
            severity="block",
            remedy="data.labels lists all classes there may be; extend it or remove the batch",
        ),
        Expectation(
            name="every class can be learnt",
            expectation=BETWEEN,
            kwargs={"column": "train_things_of_rarest_class", "min_value": data.min_per_class},
            severity="block",
            remedy=f"a class occurs under min_per_class ({data.min_per_class}) times in training examples; add some",
        ),
        Expectation(
            name="every class is tested",
            expectation=BETWEEN,
            kwargs={"column": "test_things_of_rarest_class", "min_value": 1},
            severity="warn",
            remedy="a class does not occur in the test examples, so the gate cannot see it get worse; add some",
        ),
    ]


def _classes(data: DataParams) -> list[Expectation]:
    return [
        Expectation(
            name="at least two classes",
            expectation="ExpectColumnUniqueValueCountToBeBetween",
            kwargs={"column": "label", "min_value": 2},
            severity="block",
            remedy="with one class there is nothing to tell apart; add examples of another",
        ),
        Expectation(
            name="every class can be learnt",
            expectation=BETWEEN,
            kwargs={"column": "train_examples_of_class", "min_value": data.min_per_class},
            severity="block",
            remedy=f"a class has under min_per_class ({data.min_per_class}) training examples; add some",
        ),
        Expectation(
            name="every class is tested",
            expectation=BETWEEN,
            kwargs={"column": "test_examples_of_class", "min_value": 1},
            severity="warn",
            remedy="a class has no test example, so the gate cannot see it get worse; add some with --split test",
        ),
        Expectation(
            name="classes are of like size",
            expectation=BETWEEN,
            kwargs={"column": "times_smaller_than_largest_class", "max_value": MOST_UNEQUAL},
            severity="warn",
            remedy=f"the largest class has over {MOST_UNEQUAL} times the examples of another; add some of that",
        ),
    ]


def _spread(data: DataParams) -> list[Expectation]:
    return [
        Expectation(
            name="labels as before",
            expectation=BETWEEN,
            kwargs={"column": "label_drift", "max_value": data.max_drift},
            severity="warn",
            remedy=f"a batch moves the spread of labels by over max_drift (PSI {data.max_drift}) from the data version"
            " without it; see whether it is labelled as the others are",
        )
    ]
