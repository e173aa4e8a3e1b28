"""Speaker identification: who of a closed set speaks, and whether two recordings are of one voice.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.audio.params import ACCEPT, AUDIO_COLUMNS
from models.common.kind import Estimate, Example, Expectation, Metric, ReportJob, ReportSection, TrainJob, Truth
from models.common.program import answers
from models.speaker_identification.params import SpeakerData, SpeakerTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source


def _equal_error_rate(table: "pd.DataFrame") -> Estimate:
    from models.speaker_identification import verification

    return verification.equal_error_rate(table)


Data = SpeakerData
Train = SpeakerTrain
TRUTH: Truth = "class"
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("log_loss", numerator="loss", higher_is_better=False),
    Metric("equal_error_rate", estimate=_equal_error_rate, higher_is_better=False),
)
COLUMNS = AUDIO_COLUMNS
FIELDS = {"audio": ACCEPT}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.program.answers",
    "models.common.audio.decoding",
    "models.common.errors",
    "models.common.program.program",
    "models.common.program.serving",
    "models.speaker_identification.inputs",
    "models.speaker_identification.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "soundfile", "soxr")


def examples(source: "Source", data: SpeakerData) -> Iterator[Example]:
    """A folder for each speaker, or files beside a metadata file."""
    from models.speaker_identification import reading

    return reading.examples(source, data)


def inspect(example: Example, data: SpeakerData) -> dict[str, Any]:
    """Length, rate, channels, level, clipping and offset of a recording that decodes whole."""
    from models.common.audio.checks import inspect_sound

    return inspect_sound(example.payload, data)


def expectations(data: SpeakerData, manifest: "pd.DataFrame") -> list[Expectation]:
    """All that is checked of recordings, and that voices can be compared."""
    from models.speaker_identification import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Trains a network and writes the program."""
    from models.speaker_identification import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per recording: label, prediction, correct, loss, confidence, probabilities, embedding."""
    from models.speaker_identification import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:  # noqa: ARG001  # the contract
    """Accuracy, equal error rate, balanced accuracy, log loss."""
    from models.speaker_identification import scoring

    return scoring.summary(table)


def report(job: ReportJob) -> list[ReportSection]:
    """Confusions, error rates of verification, the closest pairs of two speakers, a map of the voices."""
    from models.speaker_identification import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One recording."""
    return {"audio": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The probability of every speaker, and the embedding."""
    return {
        "probabilities": dict(zip(labels, map(float, row["probabilities"]), strict=True)),
        "embedding": [float(value) for value in row["embedding"]],
    }


differs = answers.differs
