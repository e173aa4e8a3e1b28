"""The contract between Ratchet and a kind of learning: which names the files in `models/<kind>/` offer.

A kind is a folder of plain functions, found by the names of its files and imported when they are used: looking a kind
up costs milliseconds, and what serves never imports what trains. Nothing is inherited.
"""

import ast
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import models
from models.common import params
from models.common.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from models.common.data.sources import Source
    from models.common.program.service import Service

Truth = Literal["class", "text", "target"]
D_co = TypeVar("D_co", bound=params.DataParams, covariant=True)
T_co = TypeVar("T_co", bound=params.TrainParams, covariant=True)


@dataclass(frozen=True)
class Example:
    """One example as delivered: its bytes, what is to be learnt of them, and what came beside them.

    payload: what the program takes; several files are packed into one (common/data/packed_files.py).
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
    remedy: str  # one sentence: what is wrong when it fails, and what to do


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
    estimate: "Callable[[pd.DataFrame], Estimate] | None" = None
    of_classes: "Callable[[tuple[str, ...]], Metric] | None" = None  # the same of some classes alone: its class slices

    def sums(self, table: "pd.DataFrame") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """Numerator and denominator of each example, of a metric that has them."""
        import numpy as np

        numerator = table[self.numerator].to_numpy(float)
        return numerator, table[self.denominator].to_numpy(float) if self.denominator else np.ones(len(table))

    def value(self, table: "pd.DataFrame") -> float:
        """The metric of a whole score table; 0 where nothing is to be counted."""
        import numpy as np

        if self.estimate:
            return float(self.estimate(table)(np.ones((1, len(table))))[0])
        numerator, denominator = self.sums(table)
        return float(numerator.sum() / denominator.sum()) if denominator.sum() else 0.0


@dataclass(frozen=True)
class TrainJob(Generic[D_co, T_co]):
    """All that a kind trains on; `manifest` has the rows of every batch (see models/common/data/batches.py)."""

    model: str
    data: D_co
    train: T_co
    manifest: "pd.DataFrame"  # id, label, split, group, batch, row, …
    batches: Path  # data/<model>: where <batch>.parquet lie
    out: Path  # artifacts/<model>: `program/` and `training/` are written into it
    home: Path  # .ratchet: `decoded/` and `checkpoints/` outlive the run
    initial: Path | None  # weights.pt to start from, for `weights: champion` or a path
    provenance: Mapping[str, Any]

    def rows(self, split: str) -> "pd.DataFrame":
        """The manifest's rows of one split."""
        return self.manifest[self.manifest["split"] == split]


AnyTrainJob = TrainJob[Any, Any]


@dataclass(frozen=True)
class ScoreJob:
    """A program, the candidate's or the champion's, and the examples to score it on."""

    program: Path  # folder with program.onnx and program.json
    manifest: "pd.DataFrame"
    batches: Path
    home: Path


@dataclass(frozen=True)
class ReportJob:
    """What a kind's report sections are made from. `champion` is None for a first model."""

    candidate: "pd.DataFrame"  # the score table
    champion: "pd.DataFrame | None"
    labels: tuple[str, ...]
    manifest: "pd.DataFrame"
    batches: Path


@dataclass(frozen=True)
class ReportSection:
    """A part of the report: a heading and self-contained HTML."""

    title: str
    html: str


MEMBERS = {  # what a kind offers -> the file that offers it, and how many arguments it takes where it is a function
    "TRUTH": ("__init__", None),
    "COLUMNS": ("__init__", None),
    "METRICS": ("__init__", None),
    "Data": ("params", None),
    "Train": ("params", None),
    "examples": ("reading", 2),
    "inspect": ("reading", 2),
    "expectations": ("reading", 2),
    "train": ("training", 1),
    "score": ("scoring", 1),
    "summary": ("scoring", 2),
    "report": ("report", 1),
    "SERVICE": ("predictor", None),
}
OPTIONAL = ("expectations", "summary")
FILES = ("params", "reading", "preprocessing", "dataset", "networks", "learner", "training", "scoring", "report",
         "predictor")  # fmt: skip  # every kind has all of them: the stages in dvc.yaml depend on some each


class Kind:
    """One kind: what each of its files offers, imported at first use."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def TRUTH(self) -> Truth:  # noqa: N802
        """What is learnt: one of a set of classes (label), free text (label), or what `target` holds."""
        value: Truth = self._member("TRUTH")
        return value

    @property
    def COLUMNS(self) -> Mapping[str, str]:  # noqa: N802
        """Column of a batch beyond the common ones -> pyarrow type name; where TRUTH is "target", `classes` is one."""
        value: Mapping[str, str] = self._member("COLUMNS")
        return value

    @property
    def METRICS(self) -> tuple[Metric, ...]:  # noqa: N802
        """The first is the default; the gate can decide on any of them."""
        value: tuple[Metric, ...] = self._member("METRICS")
        return value

    @property
    def Data(self) -> type[params.DataParams]:  # noqa: N802
        """The `data` section of params.yaml."""
        value: type[params.DataParams] = self._member("Data")
        return value

    @property
    def Train(self) -> type[params.TrainParams]:  # noqa: N802
        """The `train` section of params.yaml: what the kind really uses, so that all else is refused as unknown."""
        value: type[params.TrainParams] = self._member("Train")
        return value

    def examples(self, source: "Source", data: params.DataParams) -> Iterator[Example]:
        """Examples in a source (models/common/data/sources.py), in any layout that this kind's people use."""
        result: Iterator[Example] = self._member("examples")(source, data)
        return result

    def inspect(self, example: Example, data: params.DataParams) -> dict[str, Any]:
        """COLUMNS of one example, decoding it whole, its target too. Raises BadExampleError with the reason."""
        result: dict[str, Any] = self._member("inspect")(example, data)
        return result

    def expectations(self, data: params.DataParams, manifest: "pd.DataFrame") -> list[Expectation]:
        """Checks on the manifest beyond those that hold for every kind; none where the kind offers none."""
        result: list[Expectation] = self._member("expectations", lambda *_: [])(data, manifest)
        return result

    def train(self, job: AnyTrainJob) -> None:
        """Trains, and writes job.out/program and job.out/training."""
        self._member("train")(job)

    def score(self, job: ScoreJob) -> "pd.DataFrame":
        """Per-example score table of a program over the manifest's rows, in their order."""
        result: pd.DataFrame = self._member("score")(job)
        return result

    def summary(self, table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
        """Every number of a score table worth showing: METRICS, where the kind does not say which and what beside them.

        One that such a table cannot have (an error rate of pairs where there are none) is left out by the kind.
        """
        result: dict[str, float] = self._member("summary", self._metrics)(table, labels)
        return result

    def _metrics(self, table: "pd.DataFrame", _: tuple[str, ...]) -> dict[str, float]:
        return {metric.name: metric.value(table) for metric in self.METRICS}

    def report(self, job: ReportJob) -> list[ReportSection]:
        """The kind's own sections of the report."""
        result: list[ReportSection] = self._member("report")(job)
        return result

    @property
    def SERVICE(self) -> "Service":  # noqa: N802
        """What the service takes and must answer."""
        value: Service = self._member("SERVICE")
        return value

    def _member(self, name: str, default: Any = None) -> Any:
        file, _ = MEMBERS[name]
        module = f"models.{self.name}" + ("" if file == "__init__" else f".{file}")
        member = getattr(importlib.import_module(module), name, default)
        assert member is not None, name  # load_kind has checked that it is there
        return member


def known_kinds() -> list[str]:
    """Every folder in models/ but `common`: a kind exists by being there."""
    return sorted(
        module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg and module.name != "common"
    )


def load_kind(name: str) -> Kind:
    """The kind called `name`, or UserError naming those there are, or what its files lack. Imports none of them."""
    if name not in known_kinds():
        raise UserError(
            f"Unknown kind '{name}'. Known kinds: {', '.join(known_kinds())}. Add models/{name}/ to define it."
        )
    _check_members(Path(models.__path__[0]) / name)
    return Kind(name)


@functools.cache
def _check_members(folder: Path) -> None:
    """UserError naming the first thing that a kind's files must offer and do not."""
    names = {file: _top_level_names(folder / f"{file}.py") for file in ("__init__", *FILES)}
    for member, (file, arguments) in MEMBERS.items():
        where = f"models/{folder.name}/{file}.py"
        if member not in names[file]:
            if member in OPTIONAL:
                continue
            raise UserError(f"{where} has no {member}. docs/adding-a-kind.md says what each file of a kind offers")
        taken = names[file][member]
        if arguments is not None and taken not in (None, arguments):
            raise UserError(f"{where}: {member} takes {taken} arguments; it must take {arguments}")


def _top_level_names(path: Path) -> dict[str, int | None]:
    """Name -> its number of arguments where it is a function defined here. UserError where the file is missing."""
    try:
        tree = ast.parse(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"The kind '{path.parent.name}' has no file {path.name}. Every kind has: __init__.py, "
            + ", ".join(f"{name}.py" for name in FILES)
        ) from None
    except SyntaxError as error:
        raise UserError(f"models/{path.parent.name}/{path.name} line {error.lineno}: {error.msg}") from None
    names: dict[str, int | None] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names[node.name] = len(node.args.posonlyargs + node.args.args)
        elif isinstance(node, ast.ClassDef):
            names[node.name] = None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= dict.fromkeys(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= dict.fromkeys(target.id for target in targets if isinstance(target, ast.Name))
    return names
