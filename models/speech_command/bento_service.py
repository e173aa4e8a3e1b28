"""The Bento's `service.py`: a recording in, its command and probabilities out. It runs inside a Bento: `ratchet serve`.

curl -F audio=@stop.wav http://127.0.0.1:3000/predict
"""

from pathlib import Path
from typing import Any

import bentoml

from models.common.program.answers import differs
from models.common.program.serving import Answers, Door, Upload, read_settings
from models.speech_command.predictor import Predictor

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Recording(Upload):
    """The form that a request fills in."""

    audio: Path


@bentoml.service(**SETTINGS.service)
class SpeechCommand:
    """Says which command is spoken."""

    def __init__(self) -> None:
        predictor = Predictor(HERE / "program", SETTINGS.threads)
        self.answers = Answers(SETTINGS, predictor.predict)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Recording)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def predict(self, audio: bytes) -> dict[str, Any]:
        """Label, confidence and probabilities of one recording (WAV, FLAC, MP3, OGG, Opus, …), and who says so."""
        return self.answers.answer(audio=audio)


# The decorator has made the class a bentoml.Service, which mypy cannot see.
SpeechCommand.add_asgi_middleware(Door, settings=SETTINGS, fields={"audio": "audio/*"})  # type: ignore[attr-defined]
