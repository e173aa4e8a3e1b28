"""A toy kind: in which language is a text written? The kind that docs/adding-a-kind.md builds, and a test adds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.errors import BadExampleError
from models.common.kind import Example, Expectation, Metric, ReportJob, Section, TrainJob, Truth
from models.common.params import DataParams, Train
from models.common.program import answers

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = DataParams
TRUTH: Truth = "class"
METRICS = (Metric("accuracy", numerator="correct", binary=True),)
COLUMNS = {"letters": "int32"}
FIELDS = {"text": ".txt"}
SERVICE_MODULES = (
    "models.common.program.answers",
    "models.common.errors",
    "models.common.program.program",
    "models.common.program.serving",
    "models.text_language.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy")

__all__ = ["Data", "Train"]


def examples(source: "Source", data: DataParams) -> Iterator[Example]:
    """Text files in class folders, or beside a metadata file."""
    from models.common.data.sources import labelled_files

    return labelled_files(source, {".txt"}, data.columns)


def inspect(example: Example, data: DataParams) -> dict[str, Any]:
    """How many letters a text has. BadExampleError where it has none."""
    from models.text_language.predictor import letters

    return {"letters": len(letters(example.payload))}


def expectations(data: DataParams, manifest: "pd.DataFrame") -> list[Expectation]:
    """Texts that are long enough to be told."""
    return [
        Expectation(
            name="texts are long enough",
            expectation="ExpectColumnValuesToBeBetween",
            kwargs={"column": "letters", "min_value": 10},
            severity="warn",
            means="a text of under 10 letters says little about its language; leave it out",
        )
    ]


def train(job: TrainJob) -> None:
    """One linear layer on letter counts."""
    from models.text_language import learning

    learning.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per text."""
    from models.common.data.batches import read_payloads
    from models.text_language.predictor import Predictor

    predictor = Predictor(program)
    answers = [predictor.predict(payload) for payload in read_payloads(batches, manifest)]
    labels = [answer["label"] for answer in answers]
    table = manifest[["id", "label", "split", "group", "batch", "row"]].reset_index(drop=True)
    chances = [[answer["probabilities"][label] for label in predictor.labels] for answer in answers]
    return table.assign(prediction=labels, correct=(table["label"] == labels).astype(int), probabilities=chances)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """Accuracy."""
    return {"accuracy": float(table["correct"].mean())}


def report(job: ReportJob) -> list[Section]:
    """The mistakes, counted."""
    wrong = job.candidate[job.candidate["correct"] == 0]
    return [Section("Mistakes", f"<p>{len(wrong)} of {len(job.candidate)} texts were taken for another language.</p>")]


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One text."""
    if not payload:
        raise BadExampleError("empty file (0 bytes)")
    return {"text": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The probability of every language."""
    return {"probabilities": dict(zip(labels, map(float, row["probabilities"]), strict=True))}


differs = answers.differs
