"""What a program finds in pictures whose objects are known, one row each, and the metrics computed from those rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.batches import COMMON_COLUMNS
from models.common.errors import UserError
from models.common.image.letterbox import Canvas
from models.common.objects.annotations import Annotation
from models.common.objects.average_precision import Detections, Truth, average_precision, box_iou, match, row_columns
from models.common.objects.dataset import annotations, canvases
from models.common.objects.metrics import MAP, MAP50
from models.common.objects.thresholds import HALF
from models.common.program.program import Program
from models.object_detection import COLUMNS
from models.object_detection.pictures import Found, found

OVERLAP = 0.5  # IoU from which a box is an object's
SMALL, LARGE = 32, 96  # px, sides of a square of the area between COCO's small, medium and large objects


def score(program: Path, manifest: pd.DataFrame, batches: Path, home: Path) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id; classes, those in the picture; what average precision is computed from (objects/average_precision.py);
    detected_box, x1, y1, x2, y2 of each detection one after another, in px; threshold, the score from which the service
    answers a box; of each object object_label, object_side (px, square root of its area), object_score (that of the
    surest right detection at an IoU of 0.5, 0 without one), object_taken_for (the class that a surer one says, or "")
    and object_taken_for_score;
    split, group, batch, row and the manifest's slice columns. UserError when the program cannot be loaded.
    """
    loaded = Program(program)
    try:
        canvas, threshold = Canvas.of(loaded.spec.input), float(loaded.spec.input["score_threshold"])
    except KeyError as error:
        raise UserError(f"{program / 'program.json'}: input has no {error}, so it is no detector") from None
    decoded, truths, rows = canvases(manifest, batches, home, canvas), annotations(manifest, batches), []
    for place, truth in enumerate(truths):
        outputs = loaded.run(images=decoded.take(np.array([place])))
        seen = found(outputs, canvas, truth.width, truth.height)
        rows.append(scored_row(truth, seen, loaded.spec.labels) | {"threshold": threshold})
    return _table(manifest, pd.DataFrame(rows))


def scored_row(truth: Annotation, seen: Found, labels: tuple[str, ...]) -> dict[str, Any]:
    """A row's columns that come from the picture itself."""
    names, overlaps = [labels[number] for number in seen.classes], _overlaps(truth, seen)
    row = matched_row(truth, seen, labels)
    objects = np.flatnonzero(~truth.ignored)
    told = [_told(truth.labels[place], overlaps[:, place], names, seen.scores) for place in objects]
    boxes = truth.boxes[objects]
    return row | {
        "classes": sorted(truth.counts),
        "object_label": [truth.labels[place] for place in objects],
        "object_side": np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).tolist(),
        "object_score": [score for score, _, _ in told],
        "object_taken_for": [other for _, other, _ in told],
        "object_taken_for_score": [score for _, _, score in told],
    }


def matched_row(truth: Annotation, seen: Found, labels: tuple[str, ...]) -> dict[str, Any]:
    """What average precision needs of a picture, and the boxes that it counts."""
    wanted = Truth(truth.labels, truth.boxes, truth.crowd, truth.ignored)
    names = [labels[number] for number in seen.classes]
    detections = Detections(names, seen.boxes.astype(float), seen.scores.astype(float))
    matched = match(wanted, detections, box_iou)
    boxes = seen.boxes[matched.order].astype(float).ravel().tolist()
    return row_columns(wanted, detections, matched) | {"detected_box": boxes}


def map_and_map50(rows: pd.DataFrame) -> dict[str, float]:
    """Both metrics, 0 where no picture has an object."""
    once = np.ones((1, len(rows)))
    found_right = {"map": MAP, "map50": MAP50}
    return {name: float(np.nan_to_num(each.estimate(rows)(once)[0])) for name, each in found_right.items()}  # type: ignore[misc]


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """Average precision over thresholds and at two of them, recall and precision where the service answers."""
    at_75 = average_precision((0.75,))(table)(np.ones((1, len(table))))
    objects = object_table(table)
    answered = objects["score"] >= objects["threshold"]
    known = map_and_map50(table) | {"map75": float(np.nan_to_num(at_75[0]))}
    known |= {"recall": float(answered.mean()) if len(objects) else 0.0, "precision": _precision(table)}
    sizes = {"small": objects["side"] < SMALL, "large": objects["side"] >= LARGE}
    sizes["medium"] = ~sizes["small"] & ~sizes["large"]
    known |= {f"recall_{size}": float(answered[mine].mean()) for size, mine in sizes.items() if mine.any()}
    return known | {f"ap50_{label}": ap50(table, label) for label in labels}


def object_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per object of all pictures: label, side, score, taken_for and its score, threshold."""
    columns = {name: f"object_{name}" for name in ("label", "side", "score", "taken_for", "taken_for_score")}
    joined = {name: [item for items in table[column] for item in items] for name, column in columns.items()}
    return pd.DataFrame(joined).assign(
        threshold=np.repeat(table["threshold"].to_numpy(), table["object_label"].map(len))
    )


def ap50(table: pd.DataFrame, label: str) -> float:
    """Average precision of one class at an IoU of 0.5; 0 where it has no object."""
    return float(np.nan_to_num(average_precision(HALF, (label,))(table)(np.ones((1, len(table))))[0]))


def _precision(table: pd.DataFrame) -> float:
    """Share of the answered boxes that are an object's."""
    right = answered = 0
    for row in table.itertuples():
        sure = np.asarray(row.detected_score, float) >= row.threshold
        counted = sure & ((np.asarray(row.detected_ignored, int) & 1) == 0)
        right += int((counted & ((np.asarray(row.detected_matched, int) & 1) == 1)).sum())
        answered += int(counted.sum())
    return right / answered if answered else 0.0


def _overlaps(truth: Annotation, seen: Found) -> NDArray[np.float64]:
    none = np.zeros(len(truth.labels), bool)
    return box_iou(seen.boxes.astype(float), truth.boxes, none)


def _told(
    label: str, overlaps: NDArray[np.float64], names: list[str], scores: NDArray[np.float32]
) -> tuple[float, str, float]:
    """The score of the surest right detection of an object; the class that a surer wrong one says, and its score."""
    here = [(float(scores[place]), names[place]) for place in np.flatnonzero(overlaps >= OVERLAP)]
    right = max((score for score, name in here if name == label), default=0.0)
    best, other = max(((score, name) for score, name in here if name != label), default=(0.0, ""))
    return (right, other, best) if best > right else (right, "", 0.0)


def _table(manifest: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    own = {*COMMON_COLUMNS, *COLUMNS, *scored, "target_id"}
    kept = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in own]
    columns = {str(name): manifest[name].to_numpy() for name in kept}
    return scored.assign(id=manifest["id"].to_numpy(), **columns)
