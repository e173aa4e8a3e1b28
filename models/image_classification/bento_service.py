"""The Bento's `service.py`: a photo in, its label and probabilities out. It runs inside a Bento: `ratchet serve`.

curl -F image=@five.png http://127.0.0.1:3000/predict
"""

from pathlib import Path
from typing import Any

import bentoml

from models.common.program.answers import differs
from models.common.program.serving import Answers, Door, Upload, read_settings
from models.image_classification.predictor import Predictor

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Photo(Upload):
    """The form that a request fills in."""

    image: Path


@bentoml.service(**SETTINGS.service)
class ImageClassification:
    """Says what is in a photo."""

    def __init__(self) -> None:
        predictor = Predictor(HERE / "program", SETTINGS.threads)
        self.answers = Answers(SETTINGS, predictor.predict)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Photo)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def predict(self, image: bytes) -> dict[str, Any]:
        """Label, confidence and probabilities of one photo (JPEG, PNG, WebP, BMP, TIFF, GIF), and who says so."""
        return self.answers.answer(image=image)


# The decorator has made the class a bentoml.Service, which mypy cannot see.
ImageClassification.add_asgi_middleware(Door, settings=SETTINGS, fields={"image": "image/*"})  # type: ignore[attr-defined]
