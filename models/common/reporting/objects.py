"""What the reports of kinds that find objects share: precision against recall, tables, the worst pictures."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from models.common.image.decoding import decode_resized, open_image
from models.common.kind import ReportJob
from models.common.objects.annotations import Annotation, parse_target
from models.common.objects.average_precision import precision_recall
from models.common.objects.score_table import answered_detections
from models.common.reporting import svg
from models.common.reporting.examples import file_names, shown_payloads
from models.common.reporting.image import MAX_PIXELS, jpeg_uri

MAX_CURVES = 12  # classes that are drawn; of more the commonest
MAX_POINTS = 120  # of one curve
THUMBNAIL = 420  # px, longer side
SHOWN_PICTURES = 8  # pictures
# Over any photo: what is there, found, found wrongly.
TRUTH_COLOUR, RIGHT_COLOUR, WRONG_COLOUR = "#f5c542", "#39c0a0", "#ff5a4d"

Row = dict[str, Any]  # of the score table
Errors = Callable[[Row], tuple[int, int]]  # of a picture: objects that are not found, and what is found wrongly
Draw = Callable[[Row, bytes, Annotation], str]


def curves(job: ReportJob, what: str) -> str:
    """Precision against recall of each class, candidate and champion; `what` is found: "box", "mask".

    Tables need the columns of average_precision.py and `threshold`, from which the service answers.
    """
    counts = pd.Series([label for labels in job.candidate["truth_label"] for label in labels]).value_counts()
    labels = [label for label in job.labels if label in counts.nlargest(MAX_CURVES)]
    if not labels:
        return "<p>No test picture has an object.</p>"
    text = (
        f"<p>As the score from which a {what} counts falls, more objects are found (to the right) and more of what is"
        f" answered is wrong (down). A {what} is right from an IoU of 0.5 on. The dot is where the service answers.</p>"
    )
    return f'{text}<div class="pair">{"".join(f"<div>{_curve(job, label)}</div>" for label in labels)}</div>'


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
    sampled = np.unique(np.linspace(0, len(curve.recall) - 1, min(MAX_POINTS, len(curve.recall))).astype(int))
    dots = " ".join(f"{frame.x(curve.recall[i]):.1f},{frame.y(curve.precision[i]):.1f}" for i in sampled)
    parts = [f'<polyline points="{dots}" class="line {style}"/>']
    answered = np.flatnonzero(curve.score >= float(table["threshold"].iloc[0]))
    if len(answered):
        x, y = frame.x(curve.recall[answered[-1]]), frame.y(curve.precision[answered[-1]])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot {style}"/>')
    return parts


def draw_over_photo(payload: bytes, width: int, height: int, parts: Sequence[str], label: str) -> str:
    """A photo of width x height px with SVG over it, whose units are px of the photo."""
    scale = min(1.0, THUMBNAIL / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    uri = jpeg_uri(decode_resized(open_image(payload, MAX_PIXELS), *size))
    photo = f'<image width="{width}" height="{height}" href="{uri}"/>'
    return svg.drawing(width, height, [photo, *parts], label)


def table(first: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table of numbers; `rows`: a name and the cells beside it, as HTML."""
    named = "".join(f"<th class=n>{head}</th>" for head in heads)
    lines = [f"<tr><td>{name}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>" for name, cells in rows]
    return f"<table><thead><tr><th>{first}</th>{named}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def worst_pictures(job: ReportJob, errors: Errors, draw: Draw, legend: str, wrap: Callable[[str], str]) -> str:
    """The pictures with the most that is missed or wrong, as `draw` shows them.

    legend: HTML that says how; wrap: what is around all the cards.
    """
    rows = _rows(job.candidate)
    table = job.candidate.assign(errors=[sum(errors(row)) for row in rows])
    worst = table[table["errors"] > 0].nlargest(SHOWN_PICTURES, "errors")
    if worst.empty:
        return "<p>None: in every test picture all objects were found, and nothing else.</p>"
    payloads = shown_payloads(job, worst, f"The {len(worst)} pictures")
    if isinstance(payloads, str):
        return payloads
    targets = shown_payloads(job, worst, f"The {len(worst)} pictures", "target")
    if isinstance(targets, str):
        return targets
    files = file_names(job)
    cards = [
        _card(draw(row, payload, parse_target(target)), row, errors(row), files.get(row["id"], ""))
        for row, payload, target in zip(_rows(worst), payloads, targets, strict=True)
    ]
    text = f"The {len(cards)} pictures with the most errors at the score from which the service answers. {legend}"
    return f"<p>{text} What is wrong or missing in the data shows up here, too.</p>{wrap(''.join(cards))}"


def _card(drawing: str, row: Row, errors: tuple[int, int], file: str) -> str:
    missed, wrong = errors
    objects = int(np.sum(np.asarray(row["truth_count"], int)))
    where = escape(f"{file} in {row.get('batch', '')}", quote=True)
    caption = f"{objects} objects, <b>{missed}</b> not found, <b>{wrong}</b> found wrongly"
    return f'<figure title="{where}">{drawing}<figcaption>{caption}</figcaption></figure>'


def _rows(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def false_alarms(candidate: pd.DataFrame) -> dict[str, int]:
    """Class: how many answers say so that find nothing, or what another answer has found."""
    counts: dict[str, int] = {}
    for row in _rows(candidate):
        counted, right = answered_detections(row)
        for index in np.flatnonzero(counted & ~right):
            label = str(row["detected_label"][index])
            counts[label] = counts.get(label, 0) + 1
    return counts


def coloured_detections(row: Row) -> list[tuple[int, str, str]]:
    """Of each detection that the service answers: its place, its colour, and its class with its score."""
    counted, right = answered_detections(row)
    indices = np.flatnonzero(np.asarray(row["detected_score"], float) >= row["threshold"]).tolist()
    names = [f"{row['detected_label'][index]} {row['detected_score'][index]:.2f}" for index in indices]
    colours = [WRONG_COLOUR if counted[index] and not right[index] else RIGHT_COLOUR for index in indices]
    return list(zip(indices, colours, names, strict=True))


def name_label(x: float, y: float, colour: str, line: float, name: str) -> str:
    """What stands at the upper left of an object, at a line width of `line` px of the photo."""
    at = f'x="{x + 2 * line:.1f}" y="{y + 9 * line:.1f}" font-size="{8 * line:.1f}"'
    return f'<text {at} fill="{colour}">{escape(name)}</text>'
