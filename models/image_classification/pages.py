"""The report's sections on pictures: what is taken for what, how far confidence can be trusted, the worst mistakes."""

import base64
import io
from html import escape

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from models.common import svg
from models.common.batches import read_payloads
from models.common.confusions import confusions
from models.common.errors import UserError
from models.common.images import open_image
from models.common.kind import ReportJob, Section
from models.image_classification.scoring import calibration_error, reliability

SHOWN_MISTAKES = 24
THUMBNAIL = 112  # px, longer side
TINY = 48  # px; smaller pictures are enlarged without smoothing, as the network sees them
MAX_PIXELS = 2**29  # the picture was checked when it was added


def sections(job: ReportJob) -> list[Section]:
    """Confusions, reliability, and the worst mistakes with their pictures."""
    return [
        Section("Confusions", confusions(job)),
        Section("Confidence", _confidence(job)),
        Section("Worst mistakes", _mistakes(job)),
    ]


def _confidence(job: ReportJob) -> str:
    """Reliability diagram (Niculescu-Mizil & Caruana, ICML 2005): accuracy against confidence; size is examples."""
    frame = svg.Frame(0, 1, 0, 1, width=400, height=340, margins=(14, 20, 36, 46))
    parts = svg.axes(frame, "confidence")
    parts.append(f'<path d="M{frame.x(0)} {frame.y(0)}L{frame.x(1)} {frame.y(1)}" class="mark"/>')
    tables = {"champion": job.champion, "candidate": job.candidate}
    for style, table in tables.items():
        parts += [] if table is None else _dots(frame, table, style)
    parts.append(svg.text(frame.x(0) + 8, frame.y(1) + 12, "accuracy"))
    figure = svg.drawing(frame.width, frame.height, parts, "reliability diagram")
    errors = {style: calibration_error(table) for style, table in tables.items() if table is not None}
    told = [f"<b class={style}>{style}</b> {error:.3f}" for style, error in errors.items()]
    said = (
        "<p>On the dashed line confidence is what it says: of the answers given with confidence 0.8, 8 in 10 are right."
        " Below it the model is too sure of itself. A larger dot stands for more test examples."
        f"</p><p>Calibration error, 15 bins: {', '.join(reversed(told))}.</p>"
    )
    return f'<div class="pair"><div class="figure">{figure}</div><div>{said}</div></div>'


def _dots(frame: svg.Frame, table: pd.DataFrame, style: str) -> list[str]:
    bins = reliability(table)
    spots = [(frame.x(x), frame.y(y)) for x, y in zip(bins["confidence"], bins["accuracy"], strict=True)]
    sizes = 3 + 9 * (bins["examples"] / len(table)) ** 0.5
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="dot {style}"/>'
        for (x, y), size in zip(spots, sizes, strict=True)
    ]


def _mistakes(job: ReportJob) -> str:
    wrong = job.candidate[job.candidate["correct"] == 0].nlargest(SHOWN_MISTAKES, "loss")
    if wrong.empty:
        return "<p>None: every test example was answered rightly.</p>"
    try:
        payloads = read_payloads(job.batches, wrong)
    except (OSError, KeyError, UserError):
        fetch = escape(f"dvc pull data/{job.batches.name}/*.dvc")
        return f"<p>The {len(wrong)} pictures are not on this machine. Fetch them: <code>{fetch}</code></p>"
    right_before = set() if job.champion is None else set(job.champion.loc[job.champion["correct"] == 1, "id"])
    files = dict(zip(job.manifest["id"], job.manifest["file_name"], strict=True))
    cards = [
        _card(row, payload, str(files.get(row.id, "")), row.id in right_before)
        for row, payload in zip(wrong.itertuples(), payloads, strict=True)
    ]
    total = int((job.candidate["correct"] == 0).sum())
    said = f"The {len(cards)} of {total:,} wrong answers that were furthest from the truth, the worst first."
    said += " A label that is wrong in the data shows up here, too."
    if job.champion is not None:
        said += " <span class=tag>new</span> marks those that the champion answers rightly."
    return f'<p>{said}</p><div class="grid">{"".join(cards)}</div>'


def _card(row: object, payload: bytes, file: str, new: bool) -> str:
    truth, prediction = escape(str(getattr(row, "label", ""))), escape(str(getattr(row, "prediction", "")))
    mark = "<span class=tag>new</span>" if new else ""
    where = escape(f"{file} in {getattr(row, 'batch', '')}", quote=True)
    return (
        f'<figure title="{where}">{_picture(payload)}<figcaption><b>{truth}</b> taken for <b>{prediction}</b>'
        f' <span class="soft">{getattr(row, "confidence", 0):.2f}</span> {mark}</figcaption></figure>'
    )


def _picture(payload: bytes) -> str:
    """The picture as an inline image of at most THUMBNAIL px."""
    image = ImageOps.exif_transpose(open_image(payload, MAX_PIXELS))
    tiny = max(image.size) < TINY
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    out, kind = io.BytesIO(), "png" if tiny else "jpeg"
    _plain(image).save(out, kind, quality=82)
    encoded = base64.b64encode(out.getvalue()).decode()
    return f'<img class="{"tiny" if tiny else ""}" alt="" src="data:image/{kind};base64,{encoded}">'


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, float)
        return Image.fromarray((255 * values / max(values.max(), 1)).astype(np.uint8))
    return image.convert("RGB")
