"""Whether a service finds what the evaluation found. Travels in every Bento, which asks itself on every start.

Objects are label, score, box and, where the program gives them, mask.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.common.objects.masks import read_rle

CLOSE = 10  # tolerances: how near the threshold an object may be in one answer alone, and apart two of equal rank
SAME_OBJECT = 0.5  # IoU
LEAST_PX = 0.1

Object = Mapping[str, Any]


def expected_objects(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001
    """The objects that the service must answer to the example of this row of the score table: those sure enough."""
    threshold = float(row["threshold"])
    sure = [place for place, score in enumerate(row["detected_score"]) if score >= threshold]
    return {"threshold": threshold, "objects": [_expected(row, place) for place in sure]}


def _expected(row: Mapping[str, Any], place: int) -> dict[str, Any]:
    found = {
        "label": str(row["detected_label"][place]),
        "score": float(row["detected_score"][place]),
        "box": list(map(float, row["detected_box"][4 * place : 4 * place + 4])),
    }
    if "detected_mask" not in row:
        return found
    size = [int(row["picture_height"]), int(row["picture_width"])]
    return found | {"mask": {"size": size, "counts": str(row["detected_mask"][place])}}


def objects_differ(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How `answer` differs from `expected`, in a few words; "" where it agrees.

    Each object of the one that is above the threshold by more than ten tolerances must be in the other, with a score
    within `tolerance` and a box within that share of its size; or, since of two overlapping objects of nearly equal
    score either may be kept, one half over it (by masks where there are any) with a score as near as that.
    """
    ours, theirs = expected.get("objects"), answer.get("objects")
    if not isinstance(ours, Sequence) or not isinstance(theirs, Sequence):
        return f"{str(answer)[:80]} instead of objects"
    sure = float(expected["threshold"]) + CLOSE * tolerance
    for objects, others, what in ((ours, theirs, "is missing"), (theirs, ours, "was not expected")):
        for one in _unmatched(objects, others, tolerance):
            if float(one["score"]) > sure:
                where = ", ".join(f"{edge:.1f}" for edge in one["box"])
                return f"{one['label']} ({float(one['score']):.4f}) at ({where}) {what}"
    return ""


def _unmatched(objects: Sequence[Object], others: Sequence[Object], tolerance: float) -> list[Object]:
    """Those that none of the others is the same as; each of the others is taken once."""
    free, alone = list(others), []
    for one in objects:
        twin = next((other for other in free if _same(one, other, tolerance)), None)
        if twin is None:
            alone.append(one)
        else:
            free.remove(twin)
    return alone


def _same(one: Object, other: Object, tolerance: float) -> bool:
    apart = abs(float(one["score"]) - float(other["score"]))
    if one["label"] != other["label"] or apart > CLOSE * tolerance:
        return False
    if _overlap(one, other) >= SAME_OBJECT:
        return True
    return "mask" not in one and apart <= tolerance and _near(one["box"], other["box"], tolerance)


def _near(here: Sequence[float], there: Sequence[float], tolerance: float) -> bool:
    size = max(here[2] - here[0], here[3] - here[1])
    return max(abs(a - b) for a, b in zip(here, there, strict=True)) <= max(LEAST_PX, tolerance * size)


def _overlap(one: Object, other: Object) -> float:
    if "mask" in one:
        return _mask_iou(one["mask"], other["mask"])
    return _box_iou(one["box"], other["box"])


def _box_iou(here: Sequence[float], there: Sequence[float]) -> float:
    width = min(here[2], there[2]) - max(here[0], there[0])
    height = min(here[3], there[3]) - max(here[1], there[1])
    both = max(width, 0) * max(height, 0)
    either = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (here, there)) - both
    return both / either if either > 0 else 0.0


def _mask_iou(here: Mapping[str, Any], there: Mapping[str, Any]) -> float:
    """1 of two masks that are empty, 0 of two of other sizes."""
    one, other = read_rle(here), read_rle(there)
    if (one.height, one.width) != (other.height, other.width):
        return 0.0
    if one == other:
        return 1.0
    both, either = one.array() & other.array(), one.array() | other.array()
    return int(np.count_nonzero(both)) / max(1, int(np.count_nonzero(either)))
