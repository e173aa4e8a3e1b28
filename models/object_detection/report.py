"""The report's sections on found objects: precision against recall, what is missed and why, sizes, worst pictures."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.kind import ReportJob, ReportSection
from models.common.objects.annotations import Annotation
from models.common.objects.score_table import answered_detections, class_average_precision
from models.common.reporting.objects import (
    RIGHT_COLOUR,
    TRUTH_COLOUR,
    WRONG_COLOUR,
    coloured_detections,
    curves,
    draw_over_photo,
    false_alarms,
    name_label,
    table,
    worst_pictures,
)
from models.object_detection.scoring import LARGE_FROM, MEDIUM_FROM, object_table

SIZES = (0, 8, 16, MEDIUM_FROM, 64, LARGE_FROM, 192, 384, np.inf)  # px, sides of a square of an object's area
LEGEND = (
    f'Dashed <b style="color:{TRUTH_COLOUR}">yellow</b>: what is there.'
    f' <b style="color:{RIGHT_COLOUR}">Green</b>: found rightly.'
    f' <b style="color:{WRONG_COLOUR}">Red</b>: found wrongly.'
)


def report(job: ReportJob) -> list[ReportSection]:
    """Curves, objects by class and by size, and the worst pictures."""
    return [
        ReportSection("Precision and recall", curves(job, "box")),
        ReportSection("Objects by class", _classes(job)),
        ReportSection("Objects by size", _sizes(job)),
        ReportSection("Worst pictures", worst_pictures(job, _errors, _drawing, LEGEND, _grid)),
    ]


def _classes(job: ReportJob) -> str:
    objects, false = _outcomes(job.candidate), false_alarms(job.candidate)
    heads = ["objects", "found", "mistaken", "missed", "false alarms", "AP50"]
    heads += [] if job.champion is None else ["champion's AP50"]
    rows = [
        (escape(label), _class_cells(job, label, objects[objects["label"] == label], false.get(label, 0)))
        for label in sorted(set(objects["label"]) | set(false))
    ]
    text = (
        "<p>Of the boxes that the service answers: an object is found by a box of its class with an IoU of at least"
        " 0.5, mistaken where a surer box there says another class, else missed. A false alarm is a box of this class"
        " that is on no object of it, or on one that another box has found.</p>"
    )
    return text + table("", heads, rows)


def _class_cells(job: ReportJob, label: str, objects: pd.DataFrame, false: int) -> list[str]:
    counts = objects["outcome"].value_counts()
    found, mistaken, missed = (int(counts.get(name, 0)) for name in ("found", "mistaken", "missed"))
    other = objects.loc[objects["outcome"] == "mistaken", "taken_for"].value_counts()
    as_what = f" ({escape(str(other.index[0]))} {other.iloc[0]})" if len(other) else ""
    tables = [one for one in (job.candidate, job.champion) if one is not None]
    precisions = [f"{class_average_precision(one, label):.3f}" for one in tables]
    return [str(len(objects)), str(found), f"{mistaken}{as_what}", str(missed), str(false), *precisions]


def _sizes(job: ReportJob) -> str:
    """How many objects of each size are found, the champion's share beside it."""
    tables = [one for one in (job.candidate, job.champion) if one is not None]
    outcomes = [_outcomes(one) for one in tables]
    bins = pd.cut(outcomes[0]["side"], list(SIZES), right=False)
    rows = []
    for interval, objects in outcomes[0].groupby(bins, observed=True):
        edge = f"{interval.left:g} to {interval.right:g}" if np.isfinite(interval.right) else f"{interval.left:g} on"
        of_size = [one[one["side"].between(interval.left, interval.right, "left")] for one in outcomes]
        rows.append((f"{edge} px", [str(len(objects)), *map(_share, of_size)]))
    heads = ["objects", "found", "found by the champion"][: 1 + len(tables)]
    text = "<p>The side of a square of the object's area, in px of the picture as delivered.</p>"
    return text + table("side", heads, rows)


def _outcomes(scored: pd.DataFrame) -> pd.DataFrame:
    """One row per object: label, side, taken_for, outcome (found, mistaken or missed)."""
    objects = object_table(scored)
    found = objects["score"] >= objects["threshold"]
    mistaken = ~found & (objects["taken_for_score"] >= objects["threshold"])
    return objects.assign(outcome=np.select([found, mistaken], ["found", "mistaken"], "missed"))


def _share(objects: pd.DataFrame) -> str:
    return f"{(objects['outcome'] == 'found').mean():.1%}" if len(objects) else ""


def _errors(row: dict[str, Any]) -> tuple[int, int]:
    """Objects that no answered box of their class is on, and false alarms."""
    counted, right = answered_detections(row)
    return int((np.asarray(row["object_score"], float) < row["threshold"]).sum()), int((counted & ~right).sum())


def _grid(cards: str) -> str:
    return f'<div class="grid" style="grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr))">{cards}</div>'


def _drawing(row: dict[str, Any], payload: bytes, truth: Annotation) -> str:
    """The photo with its boxes, as one drawing in px of the photo."""
    line = max(truth.width, truth.height) / 250
    boxes = np.asarray(row["detected_box"], float).reshape(-1, 4)
    parts = [
        _rectangle(box, TRUTH_COLOUR, line, label, f' stroke-dasharray="{3 * line:.1f}"')
        for label, box in zip(truth.labels, truth.boxes, strict=True)
    ]
    for index, colour, name in coloured_detections(row):
        parts += [
            _rectangle(boxes[index], colour, line, name),
            name_label(boxes[index, 0], boxes[index, 1], colour, line, name),
        ]
    return draw_over_photo(payload, truth.width, truth.height, parts, "photo with boxes")


def _rectangle(box: NDArray[np.float64], colour: str, line: float, title: str, dash: str = "") -> str:
    x1, y1, x2, y2 = box.tolist()
    position = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
    style = f'fill="none" stroke="{colour}" stroke-width="{line:.1f}"{dash}'
    return f"<rect {position} {style}><title>{escape(title)}</title></rect>"
