"""What a program finds in pictures whose objects are known, one row each, and the metrics computed from those rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.common.data.batches import COMMON_COLUMNS
from models.common.errors import UserError
from models.common.image.letterbox import Canvas
from models.common.objects.annotations import Annotation
from models.common.objects.average_precision import Detections, Truth, average_precision, mask_iou, match, row_columns
from models.common.objects.dataset import annotations, canvases
from models.common.objects.metrics import MAP, MAP50
from models.common.objects.thresholds import HALF
from models.common.program.program import Program
from models.instance_segmentation import COLUMNS
from models.instance_segmentation.objects import Found, found


def score(program: Path, manifest: pd.DataFrame, batches: Path, home: Path) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id; classes, those in the picture; what average precision is computed from (objects/average_precision.py),
    by the overlap of masks in px of the picture; detected_box, x1, y1, x2, y2 of each detection one after another, and
    detected_mask, COCO's run lengths; picture_width, picture_height; threshold, the score from which the service
    answers; split, group, batch, row and the manifest's slice columns. UserError when the program cannot be loaded.
    """
    loaded = Program(program)
    try:
        canvas, threshold = Canvas.of(loaded.spec.input), float(loaded.spec.input["score_threshold"])
    except KeyError as error:
        raise UserError(f"{program / 'program.json'}: input has no {error}, so it finds no objects") from None
    decoded, rows = canvases(manifest, batches, home, canvas), []
    for place, truth in enumerate(annotations(manifest, batches)):
        outputs = loaded.run(images=decoded.take(np.array([place])))
        seen = found(outputs, canvas, truth.width, truth.height)
        rows.append(matched_row(truth, seen, loaded.spec.labels) | {"threshold": threshold})
    return _table(manifest, pd.DataFrame(rows))


def matched_row(truth: Annotation, seen: Found, labels: tuple[str, ...]) -> dict[str, Any]:
    """A row's columns that come from the picture itself."""
    wanted = Truth(truth.labels, list(truth.masks), truth.crowd, truth.ignored)
    masks = [seen.rle(place) for place in range(len(seen.scores))]
    detections = Detections([labels[number] for number in seen.classes], masks, seen.scores.astype(float))
    matched = match(wanted, detections, mask_iou)
    return row_columns(wanted, detections, matched) | {
        "classes": sorted(truth.counts),
        "detected_box": seen.boxes[matched.order].astype(float).ravel().tolist(),
        "detected_mask": [masks[place].counts for place in matched.order],
        "picture_width": truth.width,
        "picture_height": truth.height,
    }


def at_once(rows: pd.DataFrame) -> dict[str, float]:
    """Mean average precision over COCO's thresholds and at 0.5; 0 where no picture has an object."""
    once = np.ones((1, len(rows)))
    both = {"map": MAP, "map50": MAP50}
    return {name: float(np.nan_to_num(each.estimate(rows)(once)[0])) for name, each in both.items() if each.estimate}


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """Average precision of masks, and how much of what the service answers is right and of what is there it finds."""
    once = np.ones((1, len(table)))
    at_75 = float(np.nan_to_num(average_precision((0.75,))(table)(once)[0]))
    right, answered, objects = np.sum([outcome(row) for row in table.to_dict("records")], axis=0)
    known = at_once(table) | {"map75": at_75}
    known |= {"recall": right / objects if objects else 0.0, "precision": right / answered if answered else 0.0}
    return known | {
        f"ap50_{label}": float(np.nan_to_num(average_precision(HALF, (label,))(table)(once)[0])) for label in labels
    }


def outcome(row: Any) -> tuple[int, int, int]:
    """Of a row of the table, at an IoU of 0.5 and the service's threshold: right answers, answers, objects."""
    sure = np.asarray(row["detected_score"], float) >= row["threshold"]
    counted = sure & ((np.asarray(row["detected_ignored"], int) & 1) == 0)
    right = counted & ((np.asarray(row["detected_matched"], int) & 1) == 1)
    return int(right.sum()), int(counted.sum()), int(np.sum(np.asarray(row["truth_count"], int)))


def _table(manifest: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    own = {*COMMON_COLUMNS, *COLUMNS, *scored, "target_id"}
    kept = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in own]
    table = pd.DataFrame({"id": manifest["id"].to_numpy()})
    columns = {str(name): manifest[name].to_numpy() for name in kept}
    return table.assign(**{str(name): scored[name].to_numpy() for name in scored}, **columns)
