"""Score tables of programs that find objects, and the numbers computed from such a table."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.batches import COMMON_COLUMNS
from models.common.errors import UserError
from models.common.image.letterbox import Canvas
from models.common.kind import ScoreJob
from models.common.objects.average_precision import average_precision
from models.common.objects.dataset import annotations, canvases
from models.common.objects.detections import read_detections
from models.common.objects.score_rows import RowOf
from models.common.objects.thresholds import COCO, HALF
from models.common.program.program import Program


def score_pictures(job: ScoreJob, row_of: RowOf, kind_columns: Collection[str]) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id; what `row_of` says; threshold, the score from which the service answers; split,
    group, batch, row and the manifest's slice columns: all but the kind's `kind_columns`.
    UserError when the program cannot be loaded.
    """
    loaded = Program(job.program)
    try:
        canvas, threshold = Canvas.of(loaded.spec.input), float(loaded.spec.input["score_threshold"])
    except KeyError as error:
        raise UserError(f"{job.program / 'program.json'}: input has no {error}, so it finds no objects") from None
    pictures, rows = canvases(job.manifest, job.batches, job.home, canvas), []
    for index, truth in enumerate(annotations(job.manifest, job.batches)):
        outputs = loaded.run(images=pictures.take(np.array([index])))
        detections = read_detections(outputs, canvas, truth.width, truth.height)
        rows.append(row_of(truth, detections, loaded.spec.labels) | {"threshold": threshold})
    return _with_manifest(pd.DataFrame(rows), job.manifest, kind_columns)


def _with_manifest(scored: pd.DataFrame, manifest: pd.DataFrame, kind_columns: Collection[str]) -> pd.DataFrame:
    excluded = {*COMMON_COLUMNS, *kind_columns, *scored, "target_id"}
    manifest_columns = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in excluded]
    table = pd.DataFrame({"id": manifest["id"].to_numpy()})
    columns = {str(name): scored[name].to_numpy() for name in scored}
    return table.assign(**columns, **{str(name): manifest[name].to_numpy() for name in manifest_columns})


def mean_average_precisions(table: pd.DataFrame) -> dict[str, float]:
    """Over COCO's thresholds, and at two of them; 0 where no picture has an object."""
    return {
        name: _mean_average_precision(table, thresholds, None)
        for name, thresholds in (("map", COCO), ("map50", HALF), ("map75", (0.75,)))
    }


def class_average_precision(table: pd.DataFrame, label: str, thresholds: tuple[float, ...] = HALF) -> float:
    """Of one class, at an IoU of 0.5; 0 where it has no object."""
    return _mean_average_precision(table, thresholds, (label,))


def ap50_of_classes(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """ap50_<label>: average precision of each class at an IoU of 0.5."""
    return {f"ap50_{label}": class_average_precision(table, label) for label in labels}


def _mean_average_precision(
    table: pd.DataFrame, thresholds: tuple[float, ...], classes: tuple[str, ...] | None
) -> float:
    """Of all pictures, each counted once."""
    return float(np.nan_to_num(average_precision(thresholds, classes)(table)(np.ones((1, len(table))))[0]))


def answered_detections(row: Mapping[Any, Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(D,) each: which detections the service answers and count, and which of those are right, at an IoU of 0.5."""
    answered = np.asarray(row["detected_score"], float) >= row["threshold"]
    matched, ignored = (np.asarray(row[f"detected_{name}"], int) & 1 == 1 for name in ("matched", "ignored"))
    counted = answered & ~ignored
    return counted, counted & matched


def detection_counts(row: Mapping[Any, Any]) -> tuple[int, int, int]:
    """Of a picture, where the service answers: right answers, answers, objects."""
    counted, right = answered_detections(row)
    return int(right.sum()), int(counted.sum()), int(np.sum(np.asarray(row["truth_count"], int)))


def total_detection_counts(table: pd.DataFrame) -> tuple[int, int, int]:
    """The same of all pictures together."""
    right, answered, objects = np.sum([detection_counts(row) for row in table.to_dict("records")], axis=0).tolist()
    return right, answered, objects
