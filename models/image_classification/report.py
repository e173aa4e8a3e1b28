"""The report's sections on pictures: what is taken for what, how far confidence can be trusted, the worst mistakes."""

import base64
import io
from html import escape

from PIL import ImageOps

from models.common.image.decoding import open_image, rgb
from models.common.kind import ReportJob, ReportSection
from models.common.reporting.classification import confidence, mistakes
from models.common.reporting.confusion import confusions

THUMBNAIL = 112  # px, longer side
TINY = 48  # px; smaller pictures are enlarged without smoothing, as the network sees them
MAX_PIXELS = 2**29  # the picture was checked when it was added


def report(job: ReportJob) -> list[ReportSection]:
    """Confusions, reliability, and the worst mistakes with their pictures."""
    return [
        ReportSection("Confusions", confusions(job)),
        ReportSection("Confidence", confidence(job)),
        ReportSection("Worst mistakes", mistakes(job, "pictures", _card, _grid)),
    ]


def _grid(cards: list[str]) -> str:
    return f'<div class="grid">{"".join(cards)}</div>'


def _card(payload: bytes, caption: str, title: str) -> str:
    return f'<figure title="{escape(title, quote=True)}">{_picture(payload)}<figcaption>{caption}</figcaption></figure>'


def _picture(payload: bytes) -> str:
    """The picture as an inline image of at most THUMBNAIL px."""
    image = ImageOps.exif_transpose(open_image(payload, MAX_PIXELS))
    tiny = max(image.size) < TINY
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    out, kind = io.BytesIO(), "png" if tiny else "jpeg"
    rgb(image).save(out, kind, quality=82)
    encoded = base64.b64encode(out.getvalue()).decode()
    return f'<img class="{"tiny" if tiny else ""}" alt="" src="data:image/{kind};base64,{encoded}">'
