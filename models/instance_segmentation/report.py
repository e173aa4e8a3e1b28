"""The report's sections on masks: precision against recall, each class, and the worst pictures with masks over them."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.batches import read_payloads
from models.common.errors import UserError
from models.common.kind import ReportJob, ReportSection
from models.common.objects.annotations import Annotation, parse_target
from models.common.objects.average_precision import average_precision
from models.common.objects.masks import Rle, outlines
from models.common.objects.thresholds import COCO, HALF
from models.common.reporting.objects import curves, drawn_on
from models.instance_segmentation.scoring import outcome

SHOWN = 8  # pictures
TRUE, RIGHT, WRONG = "#f5c542", "#39c0a0", "#ff5a4d"  # over any photo: what is there, found, found wrongly


def report(job: ReportJob) -> list[ReportSection]:
    """Curves, average precision of each class, and the worst pictures."""
    return [
        ReportSection("Precision and recall", curves(job, "mask")),
        ReportSection("Objects by class", _classes(job)),
        ReportSection("Worst pictures", _worst(job)),
    ]


def _classes(job: ReportJob) -> str:
    """Objects and average precision of each class, the champion's beside it."""
    tables = [job.candidate] if job.champion is None else [job.candidate, job.champion]
    rows = []
    for label in job.labels:
        numbers = [f"{_objects(job.candidate, label)}"]
        numbers += [f"{_precision(table, at, label):.3f}" for at in (HALF, COCO) for table in tables]
        cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
        rows.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
    beside = ["", " of the champion"][: len(tables)]
    heads = ["objects", *(f"{name}{of}" for name in ("AP50", "AP") for of in beside)]
    named = "".join(f"<th class=n>{head}</th>" for head in heads)
    said = "<p>Average precision by the overlap of masks: at an IoU of 0.5, and over ten from 0.5 to 0.95.</p>"
    return f"{said}<table><thead><tr><th>class</th>{named}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _objects(table: pd.DataFrame, label: str) -> int:
    pairs = zip(table["truth_label"], table["truth_count"], strict=True)
    return sum(
        int(count) for names, counts in pairs for name, count in zip(names, counts, strict=True) if name == label
    )


def _precision(table: pd.DataFrame, thresholds: tuple[float, ...], label: str) -> float:
    return float(np.nan_to_num(average_precision(thresholds, (label,))(table)(np.ones((1, len(table))))[0]))


def _worst(job: ReportJob) -> str:
    """The pictures with the most that is missed or wrong, with what is there and what was found."""
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
        f"<p>The {len(cards)} pictures with the most errors at the score from which the service answers, twice each:"
        f' as annotated, with masks in <b style="color:{TRUE}">yellow</b>, and as answered,'
        f' <b style="color:{RIGHT}">green</b> where right, <b style="color:{WRONG}">red</b> where wrong.'
        " A wrong or missing mask in the data shows up here, too.</p>"
    )
    return f"{said}{''.join(cards)}"


def _card(row: dict[str, Any], payload: bytes, truth: Annotation, file: str) -> str:
    right, answered, objects = outcome(row)
    size = (truth.width, truth.height)
    line = max(size) / 300
    there = [
        _shape(mask, TRUE, line, label)
        for label, mask in zip(truth.labels, truth.masks, strict=True)
        if mask is not None
    ]
    drawings = [drawn_on(payload, *size, parts, "photo with masks") for parts in (there, _answers(row, size, line))]
    told = f"{objects} objects, <b>{objects - right}</b> not found, <b>{answered - right}</b> found wrongly"
    where = escape(f"{file} in {row.get('batch', '')}")
    shown = "".join(f'<div class="figure">{drawing}</div>' for drawing in drawings)
    caption = f"<figcaption>{told} <span class=soft>{where}</span></figcaption>"
    return f'<figure><div class="pair">{shown}</div>{caption}</figure>'


def _answers(row: dict[str, Any], size: tuple[int, int], line: float) -> list[str]:
    parts, wrong = [], _wrong(row)
    for place in np.flatnonzero(np.asarray(row["detected_score"], float) >= row["threshold"]):
        said = f"{row['detected_label'][place]} {row['detected_score'][place]:.2f}"
        mask = Rle(size[1], size[0], str(row["detected_mask"][place]))
        parts.append(_shape(mask, WRONG if wrong[place] else RIGHT, line, said))
    return parts


def _shape(mask: Rle, colour: str, line: float, said: str) -> str:
    """A mask as one path, and its name at its upper left."""
    x1, y1, x2, y2 = mask.box
    path = "".join(
        "M" + "L".join(f"{x} {y}" for x, y in corners) + "Z" for corners in outlines(mask.array()[y1:y2, x1:x2], x1, y1)
    )
    look = f'fill="{colour}" fill-opacity="0.35" fill-rule="evenodd" stroke="{colour}" stroke-width="{line:.2f}"'
    name = f'<text x="{x1 + 2 * line:.1f}" y="{y1 + 10 * line:.1f}" font-size="{9 * line:.1f}" fill="{colour}">'
    return f'<path d="{path}" {look}><title>{escape(said)}</title></path>{name}{escape(said)}</text>'


def _wrong(row: dict[str, Any]) -> NDArray[np.bool_]:
    """Which detections are answered and find nothing at an IoU of 0.5."""
    sure = np.asarray(row["detected_score"], float) >= row["threshold"]
    right, passed = (np.asarray(row[f"detected_{name}"], int) & 1 == 1 for name in ("matched", "ignored"))
    return np.asarray(sure & ~right & ~passed)


def _errors(row: Any) -> int:
    right, answered, objects = outcome(row)
    return (answered - right) + (objects - right)
