"""The report's sections on found objects: precision against recall, what is missed and why, sizes, worst pictures."""

import base64
import io
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from models.common.data.batches import read_payloads
from models.common.errors import UserError
from models.common.image.decoding import decode_whole, open_image
from models.common.kind import ReportJob, ReportSection
from models.common.objects.annotations import Annotation, parse_target
from models.common.objects.average_precision import precision_recall
from models.common.reporting import svg
from models.object_detection.scoring import LARGE, SMALL, ap50, object_table

CURVES = 12  # classes that are drawn; more are in the table alone
POINTS = 120  # of one curve
SHOWN = 8  # pictures
THUMBNAIL = 420  # px, longer side
MAX_PIXELS = 2**29  # the picture was checked when it was added
SIZES = (0, 8, 16, SMALL, 64, LARGE, 192, 384, np.inf)  # px, sides of a square of an object's area
TRUE, RIGHT, WRONG = "#f5c542", "#39c0a0", "#ff5a4d"  # over any photo: what is there, found, found wrongly


def report(job: ReportJob) -> list[ReportSection]:
    """Curves, objects by class and by size, and the worst pictures."""
    return [
        ReportSection("Precision and recall", _curves(job)),
        ReportSection("Objects by class", _classes(job)),
        ReportSection("Objects by size", _sizes(job)),
        ReportSection("Worst pictures", _worst(job)),
    ]


def _curves(job: ReportJob) -> str:
    present = {label for labels in job.candidate["truth_label"] for label in labels}
    labels = [label for label in job.labels if label in present][:CURVES]
    if not labels:
        return "<p>No test picture has an object.</p>"
    said = (
        "<p>As the score from which a box counts falls, more objects are found (to the right) and more of the boxes are"
        " wrong (down). A box is right from an IoU of 0.5 on. The dot is where the service answers.</p>"
    )
    return f'{said}<div class="pair">{"".join(f"<div>{_curve(job, label)}</div>" for label in labels)}</div>'


def _curve(job: ReportJob, label: str) -> str:
    frame = svg.Frame(0, 1, 0, 1, width=400, height=250, margins=(30, 20, 36, 46))
    parts = [*svg.axes(frame, "recall"), svg.text(frame.x(0) - 30, 16, f"{label}: precision", "name")]
    for style, table in (("champion", job.champion), ("candidate", job.candidate)):
        if table is None:
            continue
        curve = precision_recall(table, label)
        last = len(curve.recall) - 1
        chosen = np.unique(np.linspace(0, last, min(POINTS, last + 1)).astype(int))
        dots = " ".join(f"{frame.x(curve.recall[i]):.1f},{frame.y(curve.precision[i]):.1f}" for i in chosen)
        parts.append(f'<polyline points="{dots}" class="line {style}"/>')
        answered = np.flatnonzero(curve.score >= float(table["threshold"].iloc[0]))
        if len(answered):
            x, y = frame.x(curve.recall[answered[-1]]), frame.y(curve.precision[answered[-1]])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot {style}"/>')
    return svg.drawing(frame.width, frame.height, parts, f"precision against recall of {label}")


def _classes(job: ReportJob) -> str:
    objects, before = _outcomes(job.candidate), None if job.champion is None else _outcomes(job.champion)
    false = _false_alarms(job.candidate)
    rows = []
    for label in sorted(set(objects["label"]) | set(false)):
        mine = objects[objects["label"] == label]
        other = mine.loc[mine["outcome"] == "mistaken", "taken_for"].value_counts()
        as_what = f" ({escape(str(other.index[0]))} {other.iloc[0]})" if len(other) else ""
        numbers = [
            f"{len(mine)}",
            f"{int((mine['outcome'] == 'found').sum())}",
            f"{int((mine['outcome'] == 'mistaken').sum())}{as_what}",
            f"{int((mine['outcome'] == 'missed').sum())}",
            f"{false.get(label, 0)}",
            f"{ap50(job.candidate, label):.3f}",
        ]
        if before is not None and job.champion is not None:
            numbers.append(f"{ap50(job.champion, label):.3f}")
        cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
        rows.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
    heads = ["objects", "found", "mistaken", "missed", "false alarms", "AP50"]
    heads += [] if before is None else ["champion's AP50"]
    said = (
        "<p>Of the boxes that the service answers: an object is found by a box of its class with an IoU of at least"
        " 0.5, mistaken where a surer box there says another class, else missed. A false alarm is a box of this class"
        " that is on no object of it, or on one that another box has found.</p>"
    )
    return said + _table("", heads, rows)


def _sizes(job: ReportJob) -> str:
    """How many objects of each size are found, the champion's share beside it."""
    tables = {"candidate": job.candidate} | ({} if job.champion is None else {"champion": job.champion})
    found = {name: _outcomes(table) for name, table in tables.items()}
    bins = pd.cut(found["candidate"]["side"], list(SIZES), right=False)
    rows = []
    for interval, mine in found["candidate"].groupby(bins, observed=True):
        edge = f"{interval.left:g} to {interval.right:g}" if np.isfinite(interval.right) else f"{interval.left:g} on"
        shares = [
            _share(table[table["side"].between(interval.left, interval.right, "left")]) for table in found.values()
        ]
        cells = "".join(f'<td class="n">{share}</td>' for share in [str(len(mine)), *shares])
        rows.append(f"<tr><td>{edge} px</td>{cells}</tr>")
    heads = ["objects", "found", *(["found by the champion"] if job.champion is not None else [])]
    said = "<p>The side of a square of the object's area, in px of the picture as delivered.</p>"
    return said + _table("side", heads, rows)


def _worst(job: ReportJob) -> str:
    """The pictures with the most that is missed, mistaken or wrong, with what is there and what was found."""
    table = job.candidate.assign(errors=[_errors(row) for row in job.candidate.to_dict("records")])
    worst = table[table["errors"] > 0].nlargest(SHOWN, "errors")
    if worst.empty:
        return "<p>None: in every test picture all objects were found, and nothing else.</p>"
    try:
        payloads, targets = (read_payloads(job.batches, worst, column) for column in ("bytes", "target"))
    except (OSError, KeyError, UserError):
        fetch = escape(f"dvc pull data/{job.batches.name}/*.dvc")
        return f"<p>The {len(worst)} pictures are not on this machine. Fetch them: <code>{fetch}</code></p>"
    files = dict(zip(job.manifest["id"], job.manifest["file_name"], strict=True))
    cards = [
        _card(row, payload, parse_target(target), str(files.get(row["id"], "")))
        for row, payload, target in zip(worst.to_dict("records"), payloads, targets, strict=True)
    ]
    said = (
        f"<p>The {len(cards)} pictures with the most errors at the score from which the service answers. Dashed"
        f' <b style="color:{TRUE}">yellow</b>: what is there. <b style="color:{RIGHT}">Green</b>: found rightly.'
        f' <b style="color:{WRONG}">Red</b>: found wrongly. A wrong or missing box in the data shows up here, too.</p>'
    )
    wide = "grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr))"
    return f'{said}<div class="grid" style="{wide}">{"".join(cards)}</div>'


def _card(row: dict[str, Any], payload: bytes, truth: Annotation, file: str) -> str:
    missed = sum(score < row["threshold"] for score in row["object_score"])
    false = int(_wrong(row).sum())
    where = escape(f"{file} in {row.get('batch', '')}", quote=True)
    told = f"{len(row['object_label'])} objects, <b>{missed}</b> not found, <b>{false}</b> false alarms"
    return f'<figure title="{where}">{_drawn(row, payload, truth)}<figcaption>{told}</figcaption></figure>'


def _drawn(row: dict[str, Any], payload: bytes, truth: Annotation) -> str:
    """The photo with its boxes, as one drawing in px of the photo."""
    scale = min(1.0, THUMBNAIL / max(truth.width, truth.height))
    size = max(1, round(truth.width * scale)), max(1, round(truth.height * scale))
    out = io.BytesIO()
    Image.fromarray(decode_whole(open_image(payload, MAX_PIXELS), *size)).save(out, "jpeg", quality=82)
    data = base64.b64encode(out.getvalue()).decode()
    line = max(truth.width, truth.height) / 250
    photo = f'<image width="{truth.width}" height="{truth.height}" href="data:image/jpeg;base64,{data}"/>'
    parts = [photo]
    for label, box in zip(truth.labels, truth.boxes, strict=True):
        parts.append(_rectangle(box, TRUE, line, label, dashed=True))
    shown = np.asarray(row["detected_score"], float) >= row["threshold"]
    wrong, boxes = _wrong(row), np.asarray(row["detected_box"], float).reshape(-1, 4)
    for place in np.flatnonzero(shown):
        said = f"{row['detected_label'][place]} {row['detected_score'][place]:.2f}"
        parts.append(_rectangle(boxes[place], WRONG if wrong[place] else RIGHT, line, said))
    return svg.drawing(truth.width, truth.height, parts, "photo with boxes")


def _rectangle(box: NDArray[np.float64], colour: str, line: float, said: str, dashed: bool = False) -> str:
    x1, y1, x2, y2 = box.tolist()
    dash = f' stroke-dasharray="{3 * line:.1f}"' if dashed else ""
    at = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    look = f'fill="none" stroke="{colour}" stroke-width="{line:.1f}"{dash}'
    name = f'<text x="{x1 + 2 * line:.1f}" y="{y1 + 9 * line:.1f}" font-size="{8 * line:.1f}" fill="{colour}">'
    return f"<rect {at} {look}><title>{escape(said)}</title></rect>{'' if dashed else f'{name}{escape(said)}</text>'}"


def _outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """One row per object: label, side, taken_for, outcome (found, mistaken or missed)."""
    objects = object_table(table)
    found = objects["score"] >= objects["threshold"]
    mistaken = ~found & (objects["taken_for_score"] >= objects["threshold"])
    return objects.assign(outcome=np.select([found, mistaken], ["found", "mistaken"], "missed"))


def _wrong(row: dict[str, Any]) -> NDArray[np.bool_]:
    """Which detections are answered and find nothing at an IoU of 0.5."""
    sure = np.asarray(row["detected_score"], float) >= row["threshold"]
    right, passed = (np.asarray(row[f"detected_{name}"], int) & 1 == 1 for name in ("matched", "ignored"))
    return np.asarray(sure & ~right & ~passed)


def _errors(row: dict[str, Any]) -> int:
    return int(_wrong(row).sum()) + int((np.asarray(row["object_score"], float) < row["threshold"]).sum())


def _false_alarms(table: pd.DataFrame) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in table.to_dict("records"):
        for place in np.flatnonzero(_wrong({str(key): value for key, value in row.items()})):
            label = str(row["detected_label"][place])
            counts[label] = counts.get(label, 0) + 1
    return counts


def _share(objects: pd.DataFrame) -> str:
    return f"{(objects['outcome'] == 'found').mean():.1%}" if len(objects) else ""


def _table(first: str, heads: list[str], rows: list[str]) -> str:
    named = "".join(f"<th class=n>{head}</th>" for head in heads)
    return f"<table><thead><tr><th>{first}</th>{named}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
