"""Which examples of a source come in, in which split, and why the others do not: one decision after another.

A split is decided once. It is the requested one, else that of the example's group, else by a hash of the group, else of
the content. So no example ever moves, and no group is in two splits.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from models.common.data.batches import SPLITS
from models.common.data.class_counts import read_counts
from models.common.data.hashing import unit_interval
from models.common.errors import BadExampleError
from models.common.kind import Example, Truth
from models.common.params import DataParams, Splits


def split_of(group: str, shares: Splits) -> str:
    """train, val or test by the SHA-256 of a group: the same on every machine and whatever else there is."""
    point = unit_interval(group)
    if point < shares.test:
        return "test"
    return "val" if point < shares.test + shares.val else "train"


@dataclass(frozen=True)
class KnownExample:
    """An example that is in the data already, or came earlier in this source (`row` is then its row there)."""

    truth: str  # its label, or the id of its target
    split: str
    location: str
    row: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)


class KnownExamples:
    """Every example so far by id: of the batches that are there, then of this source."""

    def __init__(self, existing: pa.Table) -> None:
        self._old = {id: row for row, id in enumerate(existing["id"].to_pylist())}
        self._columns = [existing[name].to_pylist() for name in ("truth", "split", "batch")]
        self._new: dict[str, KnownExample] = {}

    def __contains__(self, id: object) -> bool:
        return id in self._old or id in self._new

    def find(self, id: str) -> KnownExample | None:
        if id not in self._old:
            return self._new.get(id)
        truth, split, batch = (column[self._old[id]] for column in self._columns)
        return KnownExample(truth, split, f"batch {batch}")

    def add(self, id: str, example: KnownExample) -> None:
        self._new[id] = example


@dataclass
class Intake:
    """Accepts, skips or quarantines examples one by one, and counts them."""

    data: DataParams
    truth: Truth
    split: str | None  # for all examples, whatever the source says
    known: KnownExamples
    group_splits: dict[str, str]
    rows: int = 0
    duplicates: int = 0
    duplicates_in_other_split: int = 0  # duplicates that were requested in another split than they are in
    overridden: int = 0  # examples whose own split was overridden by `split`
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)  # accepted rows that a later one of the same bytes contradicts
    classes: Counter[str] = field(default_factory=Counter)  # of labels; where targets hold them, of all in them
    splits: Counter[str] = field(default_factory=Counter)
    _accepted: int = 0
    _contradictory: set[str] = field(default_factory=set)  # ids that this source gives two labels

    def accept(self, example: Example, id: str, columns: dict[str, Any] | BadExampleError) -> dict[str, Any] | None:
        """The row that comes in, or None; `columns` is what the kind's `inspect` gave or raised."""
        self.rows += 1
        try:
            row = self._row(example, id, columns)
        except BadExampleError as error:
            self.quarantined.append((example.file_name, str(error)))
            return None
        if row is not None:
            classes = self._classes(row)
            truth = str(row.get("target_id") or row["label"])
            accepted = KnownExample(truth, row["split"], f"file {example.file_name}", self._accepted, classes)
            self.known.add(id, accepted)
            self.classes.update(classes)
            self.splits[row["split"]] += 1
            self._accepted += 1
        return row

    def _classes(self, row: Mapping[str, Any]) -> Mapping[str, int]:
        if self.truth == "target":
            return read_counts(row["classes"])
        return {row["label"]: 1} if self.truth == "class" else {}

    def _row(self, example: Example, id: str, columns: dict[str, Any] | BadExampleError) -> dict[str, Any] | None:
        label = None if self.truth == "target" else self._label(example)
        target = {} if label else self._target(example)
        requested = self._requested_split(example)
        if self._is_duplicate(id, label or target["target_id"], requested):
            return None
        if isinstance(columns, BadExampleError):
            raise columns
        split = self._assign_split(example.group, id, requested)
        extra = dict(example.extra or {})
        common = {"id": id, "file_name": example.file_name, "label": label, "split": split, "group": example.group}
        return {**extra, **common, **target, **columns, "bytes": example.payload}

    def _target(self, example: Example) -> dict[str, Any]:
        if example.target is None:
            raise BadExampleError("no target")
        return {"target": example.target, "target_id": hashlib.sha256(example.target).hexdigest()}

    def _label(self, example: Example) -> str:
        label = unicodedata.normalize("NFC", example.label or "").strip()
        if not label:
            raise BadExampleError("no label")
        allowed = self.data.labels if self.truth == "class" else None
        if allowed is not None and label not in allowed:
            raise BadExampleError(f"label '{label}' is not one of data.labels ({', '.join(allowed)})")
        return label

    def _requested_split(self, example: Example) -> str | None:
        if self.split:
            self.overridden += example.split not in {None, self.split}
            return self.split
        if example.split is not None and example.split not in SPLITS:
            raise BadExampleError(f"split '{example.split}' is none of {', '.join(SPLITS)}")
        return example.split

    def _is_duplicate(self, id: str, truth: str, requested: str | None) -> bool:
        earlier = self.known.find(id)
        if earlier is None:
            return False
        if earlier.truth == truth and id not in self._contradictory:
            self.duplicates += 1
            self.duplicates_in_other_split += requested not in {None, earlier.split}
            return True
        if earlier.row is not None and id not in self._contradictory:
            self._drop_earlier(id, truth, earlier)
        raise BadExampleError(f"the same bytes {self._describe_truth(earlier.truth)} in {earlier.location}")

    def _describe_truth(self, truth: str) -> str:
        if self.truth == "class":
            return f"have the label '{truth}'"
        return "have another target" if self.truth == "target" else f"have the text '{truth[:60]}'"

    def _drop_earlier(self, id: str, truth: str, earlier: KnownExample) -> None:
        """Two labels for the same bytes in one source: neither can be trusted, so the first is dropped, too."""
        self._contradictory.add(id)
        self.dropped.add(earlier.row or 0)
        self.classes.subtract(earlier.classes)
        self.splits[earlier.split] -= 1
        self.quarantined.append(
            (
                earlier.location.removeprefix("file "),
                f"the same bytes {self._describe_truth(truth)} later in this source",
            )
        )

    def _assign_split(self, group: str | None, id: str, requested: str | None) -> str:
        if group is None:
            return requested or split_of(id, self.data.splits)
        group_split = self.group_splits.get(group)
        if requested and group_split and requested != group_split:
            raise BadExampleError(
                f"split '{requested}' was requested, but its group '{group}' is in {group_split};"
                " a group is in one split"
            )
        return self.group_splits.setdefault(group, requested or split_of(group, self.data.splits))
