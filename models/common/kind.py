"""The contract between Ratchet and a kind of learning: what `models/<kind>/__init__.py` offers.

A kind is a module, not a subclass. Its heavy halves (torch, torchvision, matplotlib) are imported inside the
functions that need them, so that looking a kind up costs milliseconds.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import models
from models.common.errors import UserError
from models.common.params import DataParams, Train

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Truth = Literal["class", "text", "target"]


@dataclass(frozen=True)
class Example:
    """One example as delivered: its bytes, what is to be learnt of them, and what came beside them.

    payload: what the program will be asked with; several files are packed into one (common/data/packed_files.py).
    label: the class or the text (a transcript), where the kind's TRUTH says so.
    target: what no label can say, as bytes of the kind's own format (boxes as JSON, a mask as PNG).
    """

    file_name: str
    payload: bytes
    label: str | None = None
    split: str | None = None
    group: str | None = None
    extra: Mapping[str, str] | None = None  # further columns: they become slices
    target: bytes | None = None


@dataclass(frozen=True)
class Expectation:
    """One Great Expectations check on the manifest of all batches."""

    name: str  # unique in the kind; how results are mapped back
    expectation: str  # class name in great_expectations.expectations
    kwargs: Mapping[str, Any]
    severity: str  # "block" or "warn"
    means: str  # one sentence for a person: what is wrong when it fails, and what to do


# Weights (resamples, examples), how often each example of a score table counts -> values (resamples,). NaN: undefined.
Estimate = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Metric:
    """A number computed from a per-example score table, in one of two forms that the gate can resample in pairs.

    sum(numerator) / sum(denominator): accuracy is sum(correct) / n, word error rate sum(edits) / sum(words).
    estimate: anything else, as a function of how often each example was drawn; mean IoU, mean average precision.
    """

    name: str
    numerator: str = ""  # column of the score table
    denominator: str | None = None  # column; None: the number of examples
    higher_is_better: bool = True
    binary: bool = False  # every numerator is 0 or 1, no denominator: McNemar's test applies
    estimate: Callable[[Any], Estimate] | None = None  # of a score table (pandas.DataFrame)
    of_classes: "Callable[[tuple[str, ...]], Metric] | None" = None  # the same of some classes alone: its class slices


@dataclass(frozen=True)
class TrainJob:
    """All that a kind trains on; `manifest` has the rows of every batch (see models/common/data/batches.py)."""

    model: str
    data: DataParams
    train: Train
    manifest: Any  # pandas.DataFrame: id, label, split, group, batch, row, …
    batches: Path  # data/<model>: where <batch>.parquet lie
    out: Path  # artifacts/<model>: `program/` and `training/` are written into it
    home: Path  # .ratchet: `decoded/` and `checkpoints/` outlive the run
    initial: Path | None  # weights.pt to start from, for `weights: champion` or a path
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A part of the report: a heading and self-contained HTML."""

    title: str
    html: str


@dataclass(frozen=True)
class ReportJob:
    """What a kind's report sections are made from. `champion` is None for a first model."""

    candidate: Any  # pandas.DataFrame, the score table
    champion: Any  # pandas.DataFrame | None
    labels: tuple[str, ...]
    manifest: Any
    batches: Path


class Kind(Protocol):
    """What `models/<kind>/__init__.py` offers."""

    Data: type[DataParams]
    Train: type[Train]
    TRUTH: Truth  # what is learnt: one of a set of classes (label), free text (label), or what `target` holds
    METRICS: tuple[Metric, ...]  # the first is the default; the gate can decide on any of them
    COLUMNS: Mapping[str, str]  # column of a batch beyond the common ones -> pyarrow type name; where TRUTH is
    #                             "target", `classes` is one of them (models/common/classification/labels.py)
    FIELDS: Mapping[str, str]  # field of the service's form -> the files it takes, as in HTML: "image/*", ".wav,.flac"
    SERVICE_MODULES: tuple[str, ...]  # torch-free modules that the Bento carries, "models.common.image.decoding", …
    SERVICE_PACKAGES: tuple[str, ...]  # what they need installed: "onnxruntime", "numpy", …

    def examples(self, source: Any, data: DataParams) -> Iterator[Example]:
        """Examples in a source (models/common/data/sources.py), in any layout that this kind's people use."""

    def inspect(self, example: Example, data: DataParams) -> dict[str, Any]:
        """COLUMNS of one example, decoding it whole, its target too. Raises BadExampleError with the reason."""

    def expectations(self, data: DataParams, manifest: Any) -> list[Expectation]:
        """Checks on the manifest beyond those that hold for every kind."""

    def train(self, job: TrainJob) -> None:
        """Trains, and writes job.out/program and job.out/training."""

    def score(self, program: Path, manifest: Any, batches: Path, home: Path) -> Any:
        """Per-example score table (pandas.DataFrame) of a program over the manifest's rows, in their order."""

    def summary(self, table: Any, labels: tuple[str, ...]) -> dict[str, float]:
        """Every metric of a score table worth showing, METRICS among them."""

    def report(self, job: ReportJob) -> list[Section]:
        """The kind's own sections of the report."""

    def service(self) -> str:
        """Source of the Bento's `service.py`."""

    def form(self, payload: bytes) -> dict[str, bytes]:
        """The form that asks the service about an example: field -> file."""

    def expected(self, row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
        """What the service must answer to the example of this row of the score table, as far as it can be told."""

    def differs(self, expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
        """How an answer differs from what was expected, in a few words; "" where it agrees. See
        models/common/program/answers.py, which most kinds use as it is."""


def known_kinds() -> list[str]:
    """Every folder in models/ but `common`: a kind exists by being there."""
    return sorted(
        found.name for found in pkgutil.iter_modules(models.__path__) if found.ispkg and found.name != "common"
    )


def load_kind(name: str) -> Kind:
    """The kind called `name`, or UserError naming those there are."""
    if name not in known_kinds():
        raise UserError(
            f"Unknown kind '{name}'. Known kinds: {', '.join(known_kinds())}. Add models/{name}/ to define it."
        )
    module: ModuleType = importlib.import_module(f"models.{name}")
    return cast(Kind, module)
