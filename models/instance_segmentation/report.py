"""The report's sections on masks: precision against recall, each class, and the worst pictures with masks over them."""

from html import escape
from typing import Any

import pandas as pd

from models.common.kind import ReportJob, ReportSection
from models.common.objects.annotations import Annotation
from models.common.objects.masks import Rle, outlines
from models.common.objects.score_table import class_average_precision, detection_counts
from models.common.objects.thresholds import COCO, HALF
from models.common.reporting.objects import (
    RIGHT_COLOUR,
    TRUTH_COLOUR,
    WRONG_COLOUR,
    coloured_detections,
    curves,
    draw_over_photo,
    name_label,
    table,
    worst_pictures,
)

LEGEND = (
    f'Each twice: as annotated, with masks in <b style="color:{TRUTH_COLOUR}">yellow</b>, and as answered,'
    f' <b style="color:{RIGHT_COLOUR}">green</b> where right, <b style="color:{WRONG_COLOUR}">red</b> where wrong.'
)


def report(job: ReportJob) -> list[ReportSection]:
    """Curves, average precision of each class, and the worst pictures."""
    return [
        ReportSection("Precision and recall", curves(job, "mask")),
        ReportSection("Objects by class", _classes(job)),
        ReportSection("Worst pictures", worst_pictures(job, _errors, _drawings, LEGEND, str)),
    ]


def _classes(job: ReportJob) -> str:
    """Objects and average precision of each class, the champion's beside it."""
    tables = [one for one in (job.candidate, job.champion) if one is not None]
    owners = ["", " of the champion"][: len(tables)]
    heads = ["objects", *(f"{name}{of}" for name in ("AP50", "AP") for of in owners)]
    rows = []
    for label in job.labels:
        precisions = [f"{class_average_precision(one, label, at):.3f}" for at in (HALF, COCO) for one in tables]
        rows.append((escape(label), [str(_objects(job.candidate, label)), *precisions]))
    text = "<p>Average precision by the overlap of masks: at an IoU of 0.5, and over ten from 0.5 to 0.95.</p>"
    return text + table("class", heads, rows)


def _objects(scored: pd.DataFrame, label: str) -> int:
    pairs = zip(scored["truth_label"], scored["truth_count"], strict=True)
    return sum(
        int(count) for names, counts in pairs for name, count in zip(names, counts, strict=True) if name == label
    )


def _errors(row: dict[str, Any]) -> tuple[int, int]:
    """Objects that are not found, and answers that are wrong."""
    right, answers, objects = detection_counts(row)
    return objects - right, answers - right


def _drawings(row: dict[str, Any], payload: bytes, truth: Annotation) -> str:
    """The photo twice, with what is there and with what was found, in px of the photo."""
    size = (truth.width, truth.height)
    line = max(size) / 300
    pairs = zip(truth.labels, truth.masks, strict=True)
    truth_shapes = [_shape(mask, TRUTH_COLOUR, line, label) for label, mask in pairs if mask is not None]
    found_shapes = [
        _shape(Rle(truth.height, truth.width, str(row["detected_mask"][index])), colour, line, name)
        for index, colour, name in coloured_detections(row)
    ]
    drawings = [draw_over_photo(payload, *size, parts, "photo with masks") for parts in (truth_shapes, found_shapes)]
    return f'<div class="pair">{"".join(f"<div class=figure>{each}</div>" for each in drawings)}</div>'


def _shape(mask: Rle, colour: str, line: float, name: str) -> str:
    """A mask as one path, and its name at its upper left."""
    x1, y1, x2, y2 = mask.box
    path = "".join(
        "M" + "L".join(f"{x} {y}" for x, y in corners) + "Z" for corners in outlines(mask.array()[y1:y2, x1:x2], x1, y1)
    )
    style = f'fill="{colour}" fill-opacity="0.35" fill-rule="evenodd" stroke="{colour}" stroke-width="{line:.2f}"'
    return f'<path d="{path}" {style}><title>{escape(name)}</title></path>{name_label(x1, y1, colour, line, name)}'
