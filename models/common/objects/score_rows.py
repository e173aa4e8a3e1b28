"""What was found in one picture beside what is in it, as a row of a score table: for scoring, and for validation.

Columns are those of average_precision.py, classes, those in the picture, and detected_box, x1, y1, x2, y2 of each
detection one after another, in px.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from models.common.objects.annotations import Annotation
from models.common.objects.average_precision import (
    GroundTruth,
    IoU,
    Matches,
    Predictions,
    box_iou,
    mask_iou,
    match,
    row_columns,
)
from models.common.objects.detections import Detections
from models.common.objects.metrics import MAP, MAP50

Row = dict[str, Any]
RowOf = Callable[[Annotation, Detections, tuple[str, ...]], Row]  # what is there, what was found, the program's labels


def box_row(truth: Annotation, detections: Detections, labels: tuple[str, ...]) -> Row:
    """Objects are found by the overlap of boxes."""
    row, _ = _row(truth, truth.boxes, detections, detections.boxes.astype(float), labels, box_iou)
    return row


def mask_row(truth: Annotation, detections: Detections, labels: tuple[str, ...]) -> Row:
    """Objects are found by the overlap of masks, in px of the picture.

    Also detected_mask, COCO's run lengths, and picture_width and picture_height.
    """
    masks = [detections.rle(index) for index in range(len(detections.scores))]
    row, matched = _row(truth, list(truth.masks), detections, masks, labels, mask_iou)
    detected = [masks[index].counts for index in matched.order]
    return row | {"detected_mask": detected, "picture_width": truth.width, "picture_height": truth.height}


def map_and_map50(rows: Sequence[Row]) -> dict[str, float]:
    """Mean average precision over COCO's thresholds, and at 0.5; 0 where no picture has an object."""
    table = pd.DataFrame(rows)
    return {metric.name: float(np.nan_to_num(metric.value(table))) for metric in (MAP, MAP50)}


def _row(
    truth: Annotation, objects: Any, detections: Detections, regions: Any, labels: tuple[str, ...], iou: IoU
) -> tuple[Row, Matches]:
    ground_truth = GroundTruth(truth.labels, objects, truth.crowd, truth.ignored)
    names = [labels[number] for number in detections.classes]
    predictions = Predictions(names, regions, detections.scores.astype(float))
    matched = match(ground_truth, predictions, iou)
    boxes = detections.boxes[matched.order].astype(float).ravel().tolist()
    row = row_columns(ground_truth, predictions, matched) | {"classes": sorted(truth.counts), "detected_box": boxes}
    return row, matched
