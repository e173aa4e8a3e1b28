"""Whether a service finds what the evaluation found. Travels in every Bento, which checks itself on every start.

Objects are label, score, box and, where the program gives them, mask.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.common.objects.masks import read_rle

# Tolerances: how near the threshold an object may be in one answer alone, and apart two of equal rank.
TIE_TOLERANCES = 10
SAME_OBJECT = 0.5  # IoU
MIN_BOX_TOLERANCE = 0.1

Object = Mapping[str, Any]


def expected_objects(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001
    """The objects that the service must answer to the example of this row of the score table: those sure enough."""
    threshold = float(row["threshold"])
    answered = [index for index, score in enumerate(row["detected_score"]) if score >= threshold]
    return {"threshold": threshold, "objects": [_expected(row, index) for index in answered]}


def _expected(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    expected = {
        "label": str(row["detected_label"][index]),
        "score": float(row["detected_score"][index]),
        "box": list(map(float, row["detected_box"][4 * index : 4 * index + 4])),
    }
    if "detected_mask" not in row:
        return expected
    size = [int(row["picture_height"]), int(row["picture_width"])]
    return expected | {"mask": {"size": size, "counts": str(row["detected_mask"][index])}}


def objects_differ(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How `answer` differs from `expected`, in a few words; "" where it agrees.

    Each object of the one that is above the threshold by more than ten tolerances must be in the other, with a score
    within `tolerance` and a box within that share of its size; or, since of two overlapping objects of nearly equal
    score either may be kept, one half over it (by masks where there are any) with a score as near as that.
    """
    expected_list, answered_list = expected.get("objects"), answer.get("objects")
    if not isinstance(expected_list, Sequence) or not isinstance(answered_list, Sequence):
        return f"{str(answer)[:80]} instead of objects"
    clear_score = float(expected["threshold"]) + TIE_TOLERANCES * tolerance
    for objects, others, problem in (
        (expected_list, answered_list, "is missing"),
        (answered_list, expected_list, "was not expected"),
    ):
        for one in _unmatched(objects, others, tolerance):
            if float(one["score"]) > clear_score:
                corners = ", ".join(f"{edge:.1f}" for edge in one["box"])
                return f"{one['label']} ({float(one['score']):.4f}) at ({corners}) {problem}"
    return ""


def _unmatched(objects: Sequence[Object], others: Sequence[Object], tolerance: float) -> list[Object]:
    """Those that none of the others is the same as; each of the others is taken once."""
    remaining, unmatched = list(others), []
    for one in objects:
        match = next((other for other in remaining if _is_same_object(one, other, tolerance)), None)
        if match is None:
            unmatched.append(one)
        else:
            remaining.remove(match)
    return unmatched


def _is_same_object(one: Object, other: Object, tolerance: float) -> bool:
    score_difference = abs(float(one["score"]) - float(other["score"]))
    if one["label"] != other["label"] or score_difference > TIE_TOLERANCES * tolerance:
        return False
    if _overlap(one, other) >= SAME_OBJECT:
        return True
    return "mask" not in one and score_difference <= tolerance and _boxes_close(one["box"], other["box"], tolerance)


def _boxes_close(box: Sequence[float], other: Sequence[float], tolerance: float) -> bool:
    size = max(box[2] - box[0], box[3] - box[1])
    return max(abs(a - b) for a, b in zip(box, other, strict=True)) <= max(MIN_BOX_TOLERANCE, tolerance * size)


def _overlap(one: Object, other: Object) -> float:
    if "mask" in one:
        return _mask_iou(one["mask"], other["mask"])
    return _box_iou(one["box"], other["box"])


def _box_iou(box: Sequence[float], other: Sequence[float]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    intersection = max(width, 0) * max(height, 0)
    union = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other)) - intersection
    return intersection / union if union > 0 else 0.0


def _mask_iou(mask: Mapping[str, Any], other_mask: Mapping[str, Any]) -> float:
    """1 of two masks that are empty, 0 of two of other sizes."""
    one, other = read_rle(mask), read_rle(other_mask)
    if (one.height, one.width) != (other.height, other.width):
        return 0.0
    if one == other:
        return 1.0
    intersection, union = one.array() & other.array(), one.array() | other.array()
    return int(np.count_nonzero(intersection)) / max(1, int(np.count_nonzero(union)))
