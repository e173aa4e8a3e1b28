"""What a program finds in pictures whose objects are known, one row each, and the metrics computed from those rows."""

import pandas as pd

from models.common.kind import ScoreJob
from models.common.objects.score_rows import mask_row
from models.common.objects.score_table import (
    ap50_of_classes,
    mean_average_precisions,
    score_pictures,
    total_detection_counts,
)
from models.instance_segmentation import COLUMNS


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id; classes, those in the picture; what average precision is computed from (objects/average_precision.py),
    by the overlap of masks in px of the picture; detected_box, x1, y1, x2, y2 of each detection one after another, and
    detected_mask, COCO's run lengths; picture_width, picture_height; threshold, the score from which the service
    answers; split, group, batch, row and the manifest's slice columns. UserError when the program cannot be loaded.
    """
    return score_pictures(job, mask_row, COLUMNS)


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """Average precision of masks, and how much of what the service answers is right and of what is there it finds."""
    right, answered, objects = total_detection_counts(table)
    rates = {"recall": right / objects if objects else 0.0, "precision": right / answered if answered else 0.0}
    return mean_average_precisions(table) | rates | ap50_of_classes(table, labels)
