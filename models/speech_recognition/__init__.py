"""Speech recognition: the text of a recording, by networks trained with CTC.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.audio.params import ACCEPT, AUDIO_COLUMNS
from models.common.kind import Example, Expectation, Metric, ReportJob, ReportSection, TrainJob, Truth
from models.common.program import answers
from models.speech_recognition.params import SpeechData, SpeechTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = SpeechData
Train = SpeechTrain
TRUTH: Truth = "text"
METRICS = (
    Metric("word_error_rate", numerator="edits", denominator="words", higher_is_better=False),
    Metric("character_error_rate", numerator="letter_edits", denominator="letters", higher_is_better=False),
)
COLUMNS = dict(AUDIO_COLUMNS)
FIELDS = {"audio": ACCEPT}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.program.answers",
    "models.common.audio.decoding",
    "models.common.errors",
    "models.common.program.program",
    "models.common.program.serving",
    "models.speech_recognition.decoding",
    "models.speech_recognition.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "soundfile", "soxr")
SURE = 1e-3  # a text that another one is closer to than this may come out as that one on another machine


def examples(source: "Source", data: SpeechData) -> Iterator[Example]:
    """Files beside metadata with a column `transcript`, or LibriSpeech's folders."""
    from models.speech_recognition import reading

    return reading.examples(source, data)


def inspect(example: Example, data: SpeechData) -> dict[str, Any]:
    """Duration, rate, level of a recording that decodes whole and whose transcript can be learnt."""
    from models.speech_recognition import reading

    return reading.inspect(example, data)


def expectations(data: SpeechData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Of sounds; letters that were never learnt; transcripts too long for their recordings."""
    from models.speech_recognition import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Trains a network with CTC and writes the program."""
    from models.speech_recognition import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per recording: transcript, prediction, edits, words, letter_edits, letters, confidence, …"""
    from models.speech_recognition import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """Word and character error rate, the kinds of errors, the share of texts without any."""
    from models.speech_recognition import scoring

    return scoring.summary(table, labels)


def report(job: ReportJob) -> list[ReportSection]:
    """Words taken for others, error rate by length, the worst transcripts with their sounds."""
    from models.speech_recognition import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One recording."""
    return {"audio": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001
    """Text and confidence; nothing of an example of which two texts are as good as equal: either may come out."""
    if row["margin"] < SURE:
        return {}
    return {"text": row["prediction"], "confidence": float(row["confidence"])}


differs = answers.differs
