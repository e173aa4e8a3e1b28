"""What the reports of kinds that find objects share: precision against recall, and photos that can be drawn on."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from models.common.image.decoding import decode_whole, open_image
from models.common.kind import ReportJob
from models.common.objects.average_precision import precision_recall
from models.common.reporting import svg

CURVES = 12  # classes that are drawn; of more the commonest
POINTS = 120  # of one curve
THUMBNAIL = 420  # px, longer side
MAX_PIXELS = 2**29  # the picture was checked when it was added


def curves(job: ReportJob, what: str) -> str:
    """Precision against recall of each class, candidate and champion; `what` is found: "box", "mask".

    Tables need the columns of average_precision.py and `threshold`, from which the service answers.
    """
    counts = pd.Series([label for labels in job.candidate["truth_label"] for label in labels]).value_counts()
    labels = [label for label in job.labels if label in counts.nlargest(CURVES)]
    if not labels:
        return "<p>No test picture has an object.</p>"
    said = (
        f"<p>As the score from which a {what} counts falls, more objects are found (to the right) and more of what is"
        f" answered is wrong (down). A {what} is right from an IoU of 0.5 on. The dot is where the service answers.</p>"
    )
    return f'{said}<div class="pair">{"".join(f"<div>{_curve(job, label)}</div>" for label in labels)}</div>'


def _curve(job: ReportJob, label: str) -> str:
    frame = svg.Frame(0, 1, 0, 1, width=400, height=250, margins=(30, 20, 36, 46))
    parts = [*svg.axes(frame, "recall"), svg.text(frame.x(0) - 30, 16, f"{label}: precision", "name")]
    tables = {"champion": job.champion, "candidate": job.candidate}
    for style, table in tables.items():
        if table is not None:
            parts += _line(frame, table, label, style)
    return svg.drawing(frame.width, frame.height, parts, f"precision against recall of {label}")


def _line(frame: svg.Frame, table: pd.DataFrame, label: str, style: str) -> list[str]:
    curve = precision_recall(table, label)
    chosen = np.unique(np.linspace(0, len(curve.recall) - 1, min(POINTS, len(curve.recall))).astype(int))
    dots = " ".join(f"{frame.x(curve.recall[i]):.1f},{frame.y(curve.precision[i]):.1f}" for i in chosen)
    parts = [f'<polyline points="{dots}" class="line {style}"/>']
    answered = np.flatnonzero(curve.score >= float(table["threshold"].iloc[0]))
    if len(answered):
        x, y = frame.x(curve.recall[answered[-1]]), frame.y(curve.precision[answered[-1]])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot {style}"/>')
    return parts


def drawn_on(payload: bytes, width: int, height: int, parts: Sequence[str], label: str) -> str:
    """A photo of width x height px with SVG over it, whose units are px of the photo."""
    scale = min(1.0, THUMBNAIL / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    out = io.BytesIO()
    Image.fromarray(decode_whole(open_image(payload, MAX_PIXELS), *size)).save(out, "jpeg", quality=82)
    data = base64.b64encode(out.getvalue()).decode()
    photo = f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>'
    return svg.drawing(width, height, [photo, *parts], label)
