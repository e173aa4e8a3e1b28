"""The Bento's `service.py`: a text in, its language out.

curl -F text=@letter.txt http://127.0.0.1:3000/predict
"""

from pathlib import Path
from typing import Any

import bentoml

from models.common.program.answers import differs
from models.common.program.serving import Answers, Door, Upload, read_settings
from models.text_language.predictor import Predictor

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Letter(Upload):
    """The form that a request fills in."""

    text: Path


@bentoml.service(**SETTINGS.service)
class TextLanguage:
    """Says which language a text is in."""

    def __init__(self) -> None:
        self.answers = Answers(SETTINGS, Predictor(HERE / "program", SETTINGS.threads).predict)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Letter)  # type: ignore[untyped-decorator]
    def predict(self, text: bytes) -> dict[str, Any]:
        """Label and probabilities of one text."""
        return self.answers.answer(text=text)


TextLanguage.add_asgi_middleware(Door, settings=SETTINGS, fields={"text": ".txt"})  # type: ignore[attr-defined]
