"""What a program finds in pictures whose objects are known, one row each, and the metrics computed from those rows."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.kind import ScoreJob
from models.common.objects.annotations import Annotation
from models.common.objects.average_precision import box_iou
from models.common.objects.detections import Detections
from models.common.objects.score_rows import box_row
from models.common.objects.score_table import (
    ap50_of_classes,
    mean_average_precisions,
    score_pictures,
    total_detection_counts,
)
from models.object_detection import COLUMNS

MIN_IOU = 0.5  # IoU from which a box is an object's
MEDIUM_FROM, LARGE_FROM = 32, 96  # px, sides of a square of the area between COCO's small, medium and large objects


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id; classes, those in the picture; what average precision is computed from (objects/average_precision.py);
    detected_box, x1, y1, x2, y2 of each detection one after another, in px; threshold, the score from which the service
    answers a box; of each object object_label, object_side (px, square root of its area), object_score (that of the
    surest right detection at an IoU of 0.5, 0 without one), object_taken_for (the class that a surer one says, or "")
    and object_taken_for_score;
    split, group, batch, row and the manifest's slice columns. UserError when the program cannot be loaded.
    """
    return score_pictures(job, scored_row, COLUMNS)


def scored_row(truth: Annotation, detections: Detections, labels: tuple[str, ...]) -> dict[str, Any]:
    """A row's columns that come from the picture itself."""
    overlaps = box_iou(detections.boxes.astype(float), truth.boxes, np.zeros(len(truth.labels), bool))
    names = [labels[number] for number in detections.classes]
    objects = np.flatnonzero(~truth.ignored)
    best = [_best_scores(truth.labels[index], overlaps[:, index], names, detections.scores) for index in objects]
    boxes = truth.boxes[objects]
    return box_row(truth, detections, labels) | {
        "object_label": [truth.labels[index] for index in objects],
        "object_side": np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).tolist(),
        "object_score": [score for score, _, _ in best],
        "object_taken_for": [other for _, other, _ in best],
        "object_taken_for_score": [score for _, _, score in best],
    }


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """Average precision over thresholds and at two of them, recall and precision where the service answers."""
    objects = object_table(table)
    answered = objects["score"] >= objects["threshold"]
    right, answers, _ = total_detection_counts(table)
    numbers = mean_average_precisions(table)
    numbers |= {"recall": float(answered.mean()) if len(objects) else 0.0}
    numbers |= {"precision": right / answers if answers else 0.0}
    sizes = {"small": objects["side"] < MEDIUM_FROM, "large": objects["side"] >= LARGE_FROM}
    sizes["medium"] = ~sizes["small"] & ~sizes["large"]
    numbers |= {f"recall_{size}": float(answered[of_size].mean()) for size, of_size in sizes.items() if of_size.any()}
    return numbers | ap50_of_classes(table, labels)


def object_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per object of all pictures: label, side, score, taken_for and its score, threshold."""
    columns = {name: f"object_{name}" for name in ("label", "side", "score", "taken_for", "taken_for_score")}
    joined = {name: [item for items in table[column] for item in items] for name, column in columns.items()}
    return pd.DataFrame(joined).assign(
        threshold=np.repeat(table["threshold"].to_numpy(), table["object_label"].map(len))
    )


def _best_scores(
    label: str, overlaps: NDArray[np.float64], names: list[str], scores: NDArray[np.float32]
) -> tuple[float, str, float]:
    """The score of the surest right detection of an object; the class that a surer wrong one says, and its score."""
    candidates = [(float(scores[index]), names[index]) for index in np.flatnonzero(overlaps >= MIN_IOU)]
    right = max((score for score, name in candidates if name == label), default=0.0)
    best, other = max(((score, name) for score, name in candidates if name != label), default=(0.0, ""))
    return (right, other, best) if best > right else (right, "", 0.0)
