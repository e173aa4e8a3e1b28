"""The checks on the data of every kind. A kind adds its own in `expectations`.

Some checks are about classes, groups or batches, not rows. They look at a column that is derived here: each row then
carries the value of its class, group or batch, and a failing check names the rows that it is about.
"""

from collections import Counter

import numpy as np
import pandas as pd

from models.common.data.batches import COMMON_COLUMNS, SPLITS
from models.common.data.class_counts import read_counts
from models.common.data.drift import batch_drift, drift_expectation
from models.common.kind import Expectation, Truth
from models.common.params import DataParams

MAX_IMBALANCE = 20  # times that the largest class may outnumber another before a warning
BETWEEN = "ExpectColumnValuesToBeBetween"
IN_SET = "ExpectColumnValuesToBeInSet"
TRUTH_NAMES: dict[Truth, str] = {"class": "label", "text": "text", "target": "target"}


def schema_expectation(columns: list[str]) -> Expectation:
    """Every column is there; without it, no other check means anything."""
    return Expectation(
        name="every column is there",
        expectation="ExpectTableColumnsToMatchSet",
        kwargs={"column_set": [*COMMON_COLUMNS, *columns], "exact_match": False},
        severity="block",
        remedy="a batch lacks columns of its kind; remove it and add it again",
    )


def common_expectations(data: DataParams, truth: Truth, manifest: pd.DataFrame) -> list[Expectation]:
    """The checks that hold for every kind, and those of its truth. Adds the columns that they look at to `manifest`."""
    _add_common_columns(manifest, truth)
    checks = [*_row_checks(data, truth), *_leak_checks(truth), *_split_checks()]
    if truth == "class":
        _add_class_columns(manifest)
        return [*checks, *_class_checks(data), *_drift_checks(data)]
    if truth == "target":
        _add_instance_columns(manifest, data)
        return [*checks, *_instance_checks(data)]
    return checks


def _add_common_columns(manifest: pd.DataFrame, truth: Truth) -> None:
    split = manifest["split"]
    truths = manifest["target_id" if truth == "target" else "label"]
    manifest["labels_of_id"] = truths.groupby(manifest["id"]).transform("nunique")
    manifest["splits_of_group"] = split.groupby(manifest["group"]).transform("nunique")


def _add_instance_columns(manifest: pd.DataFrame, data: DataParams) -> None:
    """How often each example's rarest class occurs, and which of its classes are not of the closed set."""
    counts_of_examples = [read_counts(text) for text in manifest["classes"]]
    totals: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for split, counts in zip(manifest["split"], counts_of_examples, strict=True):
        totals.setdefault(split, Counter()).update(counts)
    for name in ("train", "test"):
        rarest = [min((totals[name][label] for label in counts), default=None) for counts in counts_of_examples]
        manifest[f"{name}_instances_of_rarest_class"] = pd.array(rarest, dtype="Int64").to_numpy(float, na_value=np.nan)
    allowed = set(data.labels) if data.labels is not None else None
    manifest["unknown_classes"] = [
        ", ".join(sorted(set(counts) - allowed)) if allowed is not None else "" for counts in counts_of_examples
    ]


def _add_class_columns(manifest: pd.DataFrame) -> None:
    label, split = manifest["label"], manifest["split"]
    for name in ("train", "test"):
        manifest[f"{name}_examples_of_class"] = (split == name).groupby(label).transform("sum")
    sizes = label.groupby(label).transform("size")
    manifest["times_smaller_than_largest_class"] = sizes.max() / sizes
    manifest["label_drift"] = batch_drift(manifest["batch"], label)


def _row_checks(data: DataParams, truth: Truth) -> list[Expectation]:
    column = "target_id" if truth == "target" else "label"
    checks = [
        Expectation(
            name="ids are content hashes",
            expectation="ExpectColumnValuesToMatchRegex",
            kwargs={"column": "id", "regex": "^[0-9a-f]{64}$"},
            severity="block",
            remedy="an id is the SHA-256 of an example's bytes; this index was not written by `ratchet add`",
        ),
        Expectation(
            name=f"every example has a {TRUTH_NAMES[truth]}",
            expectation="ExpectColumnValuesToNotBeNull",
            kwargs={"column": column},
            severity="block",
            remedy=f"an example without a {TRUTH_NAMES[truth]} cannot be learnt;"
            " remove its batch and add it again with it",
        ),
        Expectation(
            name="splits are train, val or test",
            expectation=IN_SET,
            kwargs={"column": "split", "value_set": list(SPLITS)},
            severity="block",
            remedy="an example is in one of the three splits; this index was not written by `ratchet add`",
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


def _leak_checks(truth: Truth) -> list[Expectation]:
    return [
        Expectation(
            name=f"one {TRUTH_NAMES[truth]} per example",
            expectation=BETWEEN,
            kwargs={"column": "labels_of_id", "min_value": 1, "max_value": 1},
            severity="block",
            remedy=f"the same bytes have two {TRUTH_NAMES[truth]}s in two batches; remove the batch that is wrong",
        ),
        Expectation(
            name="no group in two splits",
            expectation=BETWEEN,
            kwargs={"column": "splits_of_group", "min_value": 1, "max_value": 1},
            severity="block",
            remedy="a group (or the same bytes) in two splits leaks training data into the test;"
            " remove one of its batches",
        ),
        Expectation(
            name="no example twice",
            expectation="ExpectColumnValuesToBeUnique",
            kwargs={"column": "id"},
            severity="warn",
            remedy="the same bytes are in two batches, as when two clones added them at once; remove one of them",
        ),
    ]


def _split_checks() -> list[Expectation]:
    return [
        Expectation(
            name="train and test splits have examples",
            expectation="ExpectColumnDistinctValuesToContainSet",
            kwargs={"column": "split", "value_set": ["train", "test"]},
            severity="block",
            remedy="both splits need examples; add some with --split test, or set data.splits.test",
        ),
        Expectation(
            name="val split has examples",
            expectation="ExpectColumnDistinctValuesToContainSet",
            kwargs={"column": "split", "value_set": ["val"]},
            severity="warn",
            remedy="without val examples, a share of the training ones (data.splits.val) is held out to select the best"
            " epoch; to choose them yourself, add some: --split val",
        ),
    ]


def _instance_checks(data: DataParams) -> list[Expectation]:
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
            kwargs={"column": "train_instances_of_rarest_class", "min_value": data.min_per_class},
            severity="block",
            remedy=f"a class occurs under min_per_class ({data.min_per_class}) times in training examples; add some",
        ),
        Expectation(
            name="every class is tested",
            expectation=BETWEEN,
            kwargs={"column": "test_instances_of_rarest_class", "min_value": 1},
            severity="warn",
            remedy="a class does not occur in the test examples, so the gate cannot see it get worse; add some",
        ),
    ]


def _class_checks(data: DataParams) -> list[Expectation]:
    return [
        Expectation(
            name="at least two classes",
            expectation="ExpectColumnUniqueValueCountToBeBetween",
            kwargs={"column": "label", "min_value": 2},
            severity="block",
            remedy="a classifier needs two classes or more; add examples of another",
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
            name="classes are balanced",
            expectation=BETWEEN,
            kwargs={"column": "times_smaller_than_largest_class", "max_value": MAX_IMBALANCE},
            severity="warn",
            remedy=f"the largest class has over {MAX_IMBALANCE} times the examples of another; add more of the smaller",
        ),
    ]


def _drift_checks(data: DataParams) -> list[Expectation]:
    return [
        drift_expectation(
            "labels as before",
            "label_drift",
            data.max_drift,
            "the distribution of labels",
            "see whether it is labelled as the others are",
        )
    ]
