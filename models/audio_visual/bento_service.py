"""The Bento's `service.py`: a picture, a sound or both in, label and probabilities out. It runs inside a Bento.

curl -F image=@five.png -F audio=@five.wav http://127.0.0.1:3000/predict
"""

from pathlib import Path
from typing import Any

import bentoml

from models.audio_visual.predictor import Predictor
from models.common.program.answers import differs
from models.common.program.serving import Answers, Door, Upload, read_settings

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Pair(Upload):
    """The form that a request fills in; either of the two may be left out."""

    image: Path | None = None
    audio: Path | None = None


@bentoml.service(**SETTINGS.service)
class AudioVisual:
    """Says what is in a picture, in a sound, or in both together."""

    def __init__(self) -> None:
        predictor = Predictor(HERE / "program", SETTINGS.threads)
        self.answers = Answers(SETTINGS, predictor.predict)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Pair)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def predict(self, image: bytes | None = None, audio: bytes | None = None) -> dict[str, Any]:
        """Label, confidence and probabilities of a picture (JPEG, PNG, WebP, …), a sound (WAV, FLAC, MP3, OGG, …), or
        both, which halves were used, and who says so."""
        given = {name: part for name, part in (("image", image), ("audio", audio)) if part is not None}
        return self.answers.answer(**given)


# The decorator has made the class a bentoml.Service, which mypy cannot see.
AudioVisual.add_asgi_middleware(  # type: ignore[attr-defined]
    Door, settings=SETTINGS, fields={"image": "image/*", "audio": "audio/*"}
)
