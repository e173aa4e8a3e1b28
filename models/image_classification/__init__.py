"""Image classification: one label for one picture, by any torchvision network or a small CNN of our own.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.kind import Example, Expectation, Metric, ReportJob, Section, TrainJob, Truth
from models.common.program import answers
from models.image_classification.params import ImageData, ImageTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = ImageData
Train = ImageTrain
TRUTH: Truth = "class"
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("log_loss", numerator="loss", higher_is_better=False),
)
COLUMNS = {"width": "int32", "height": "int32", "phash": "uint64"}
FIELDS = {"image": "image/*"}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.program.answers",
    "models.common.errors",
    "models.common.image.decoding",
    "models.common.program.program",
    "models.common.program.serving",
    "models.image_classification.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "pillow")


def examples(source: "Source", data: ImageData) -> Iterator[Example]:
    """Class folders, or files beside a metadata file."""
    from models.image_classification import reading

    return reading.examples(source, data)


def inspect(example: Example, data: ImageData) -> dict[str, Any]:
    """Width, height and perceptual hash of a picture that decodes whole."""
    from models.image_classification import reading

    return reading.inspect(example.payload, data)


def expectations(data: ImageData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes and near-duplicates across splits."""
    from models.image_classification import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Fine-tunes a network and writes the program."""
    from models.image_classification import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per picture: label, prediction, correct, loss, confidence, probabilities."""
    from models.image_classification import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, log loss, calibration error."""
    from models.common.classification.metrics import class_summary

    return class_summary(table, labels)


def report(job: ReportJob) -> list[Section]:
    """Confusion matrix, reliability diagram, worst mistakes."""
    from models.image_classification import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One photo."""
    return {"image": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The probability of every label. Not the label itself: of two that are as good as equal either may come first."""
    return {"probabilities": dict(zip(labels, map(float, row["probabilities"]), strict=True))}


differs = answers.differs
