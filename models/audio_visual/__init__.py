"""Pictures with sound: one label for a photo and a recording together, either of which may be missing.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.audio_visual.params import AudioVisualData, AudioVisualTrain
from models.common.audio.params import ACCEPT, AUDIO_COLUMNS
from models.common.kind import Example, Expectation, Metric, ReportJob, ReportSection, TrainJob, Truth
from models.common.program import answers

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = AudioVisualData
Train = AudioVisualTrain
TRUTH: Truth = "class"
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("accuracy_image_only", numerator="correct_image", denominator="has_image"),
    Metric("accuracy_audio_only", numerator="correct_audio", denominator="has_audio"),
    Metric("log_loss", numerator="loss", higher_is_better=False),
)
COLUMNS = {"parts": "string", "width": "int32", "height": "int32", "phash": "uint64", **AUDIO_COLUMNS}
FIELDS = {"image": "image/*", "audio": ACCEPT}
SERVICE_MODULES = (
    "models",
    "models.audio_visual.inputs",
    "models.audio_visual.predictor",
    "models.common",
    "models.common.program.answers",
    "models.common.audio.decoding",
    "models.common.errors",
    "models.common.image.decoding",
    "models.common.program.program",
    "models.common.program.serving",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "pillow", "soundfile", "soxr")


def examples(source: "Source", data: AudioVisualData) -> Iterator[Example]:
    """Rows of a metadata file with the columns image and audio, either of them empty."""
    from models.audio_visual import reading

    return reading.examples(source, data)


def inspect(example: Example, data: AudioVisualData) -> dict[str, Any]:
    """Which parts there are, and what is recorded of photos and of sounds, of those that decode whole."""
    from models.audio_visual import reading

    return reading.inspect(example.payload, data)


def expectations(data: AudioVisualData, manifest: "pd.DataFrame") -> list[Expectation]:
    """How often a half is missing, and all that is checked of photos and of sounds."""
    from models.audio_visual import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Trains both branches and what joins them, and writes the program."""
    from models.audio_visual import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per example: answers with what is there, with its picture alone and with its sound alone."""
    from models.audio_visual import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:  # noqa: ARG001  # the contract
    """Accuracy with what is there, with both, with either alone; balanced accuracy and log loss."""
    from models.audio_visual import scoring

    return scoring.summary(table)


def report(job: ReportJob) -> list[ReportSection]:
    """What each half is worth, confusions, worst mistakes with picture, player and spectrogram."""
    from models.audio_visual import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """The picture, the sound, or both."""
    from models.common.data.packed_files import unpack

    return unpack(payload)


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The probability of every label, from the halves that the example has."""
    probabilities = dict(zip(labels, map(float, row["probabilities"]), strict=True))
    return {"probabilities": probabilities, "used": str(row["parts"]).split("+")}


differs = answers.differs
