"""The Bento's `service.py`: a recording in, its text out. It runs inside a Bento: `ratchet serve`.

curl -F audio=@said.wav http://127.0.0.1:3000/predict
curl -F audio=@said.wav http://127.0.0.1:3000/beam
"""

from pathlib import Path
from typing import Any

import bentoml

from models.common.program.answers import differs
from models.common.program.serving import Answers, Door, Upload, read_settings
from models.speech_recognition.predictor import Predictor

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Recording(Upload):
    """The form that a request fills in."""

    audio: Path


@bentoml.service(**SETTINGS.service)
class SpeechRecognition:
    """Writes down what is said."""

    def __init__(self) -> None:
        predictor = Predictor(HERE / "program", SETTINGS.threads)
        self.answers = Answers(SETTINGS, predictor.answer)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Recording)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def predict(self, audio: bytes) -> dict[str, Any]:
        """Text of one recording (WAV, FLAC, MP3, OGG, …), with word times and confidence, and who says so."""
        return self.answers.answer(audio=audio)

    @bentoml.api(input_spec=Recording)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def beam(self, audio: bytes) -> dict[str, Any]:
        """The same by beam search: slower, and a little better where letters are uncertain."""
        return self.answers.answer(searched=audio)


# The decorator has made the class a bentoml.Service, which mypy cannot see.
SpeechRecognition.add_asgi_middleware(Door, settings=SETTINGS, fields={"audio": "audio/*"})  # type: ignore[attr-defined]
