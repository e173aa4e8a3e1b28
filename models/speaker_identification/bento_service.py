"""The Bento's `service.py`: a voice in, its speaker and embedding out; two voices compared. It runs inside a Bento.

curl -F audio=@who.wav http://127.0.0.1:3000/predict
curl -F first=@one.wav -F second=@other.wav http://127.0.0.1:3000/verify
"""

from pathlib import Path
from typing import Any

import bentoml

from models.common.program.answers import differs
from models.common.program.serving import Answers, Door, Upload, read_settings
from models.speaker_identification.predictor import Predictor

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Voice(Upload):
    """The form of a request to tell who speaks."""

    audio: Path


class TwoVoices(Upload):
    """The form of a request to compare."""

    first: Path
    second: Path


@bentoml.service(**SETTINGS.service)
class SpeakerIdentification:
    """Says who speaks, and whether two recordings are of one speaker."""

    def __init__(self) -> None:
        predictor = Predictor(HERE / "program", SETTINGS.threads)
        self.answers = Answers(SETTINGS, predictor.answer)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Voice)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def predict(self, audio: bytes) -> dict[str, Any]:
        """Speaker, confidence, probabilities, embedding of one recording (WAV, FLAC, MP3, OGG, …), and who says so."""
        return self.answers.answer(audio=audio)

    @bentoml.api(input_spec=TwoVoices)  # type: ignore[untyped-decorator]
    def verify(self, first: bytes, second: bytes) -> dict[str, Any]:
        """How alike two voices are, from which similarity on they are called the same, and whether these are."""
        return self.answers.answer(first=first, second=second)


# The decorator has made the class a bentoml.Service, which mypy cannot see.
SpeakerIdentification.add_asgi_middleware(Door, settings=SETTINGS, fields={"audio": "audio/*"})  # type: ignore[attr-defined]
