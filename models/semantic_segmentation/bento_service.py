"""The Bento's `service.py`: a photo in, the class of each of its pixels out. It runs inside a Bento: `ratchet serve`.

curl -F image=@street.jpg http://127.0.0.1:3000/predict | jq -r .mask | base64 -d > mask.png
"""

from pathlib import Path
from typing import Any

import bentoml

from models.common.program.serving import Answers, Door, Upload, read_settings
from models.semantic_segmentation.predictor import Predictor, differs

HERE = Path(__file__).parent
SETTINGS = read_settings(HERE)


class Photo(Upload):
    """The form that a request fills in."""

    image: Path


@bentoml.service(**SETTINGS.service)
class SemanticSegmentation:
    """Says of every pixel of a photo what it shows."""

    def __init__(self) -> None:
        predictor = Predictor(HERE / "program", SETTINGS.threads)
        self.answers = Answers(SETTINGS, predictor.predict)
        self.answers.check(HERE / "golden", differs)

    @bentoml.api(input_spec=Photo)  # type: ignore[untyped-decorator]  # bentoml is not typed
    def predict(self, image: bytes) -> dict[str, Any]:
        """Mask (PNG as base64) of one photo (JPEG, PNG, WebP, BMP, TIFF, GIF), share of each class, and who says so."""
        return self.answers.answer(image=image)


# The decorator has made the class a bentoml.Service, which mypy cannot see.
SemanticSegmentation.add_asgi_middleware(Door, settings=SETTINGS, fields={"image": "image/*"})  # type: ignore[attr-defined]
