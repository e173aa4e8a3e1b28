"""Speech commands: one label for one short recording, by a small network of our own or a torchaudio bundle.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.audio.params import ACCEPT, AUDIO_COLUMNS
from models.common.kind import Example, Expectation, Metric, ReportJob, ReportSection, TrainJob, Truth
from models.common.program import answers
from models.speech_command.params import CommandData, CommandTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = CommandData
Train = CommandTrain
TRUTH: Truth = "class"
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("log_loss", numerator="loss", higher_is_better=False),
)
COLUMNS = AUDIO_COLUMNS
FIELDS = {"audio": ACCEPT}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.program.answers",
    "models.common.errors",
    "models.common.audio.decoding",
    "models.common.program.program",
    "models.common.program.serving",
    "models.speech_command.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "soundfile", "soxr")


def examples(source: "Source", data: CommandData) -> Iterator[Example]:
    """A folder for each command, or files beside a metadata file."""
    from models.speech_command import reading

    return reading.examples(source, data)


def inspect(example: Example, data: CommandData) -> dict[str, Any]:
    """Length, rate, channels, level, clipping and offset of a recording that decodes whole."""
    from models.common.audio.checks import inspect_sound

    return inspect_sound(example.payload, data)


def expectations(data: CommandData, manifest: "pd.DataFrame") -> list[Expectation]:
    """All that is checked of recordings, and that they fit in a clip."""
    from models.speech_command import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Fine-tunes a network and writes the program."""
    from models.speech_command import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per recording: label, prediction, correct, loss, confidence, probabilities."""
    from models.speech_command import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, log loss, calibration error."""
    from models.common.classification.metrics import class_summary

    return class_summary(table, labels)


def report(job: ReportJob) -> list[ReportSection]:
    """Confusion matrix, reliability diagram, worst mistakes."""
    from models.speech_command import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One recording."""
    return {"audio": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The probability of every label. Not the label itself: of two that are as good as equal either may come first."""
    return {"probabilities": dict(zip(labels, map(float, row["probabilities"]), strict=True))}


differs = answers.differs
