"""Whether a service finds what the evaluation found. Travels in every Bento, which asks itself on every start."""

from collections.abc import Mapping, Sequence
from typing import Any

CLOSE = 10  # tolerances: how near the threshold a box may be in one answer alone, and apart two of equal rank
SAME_OBJECT = 0.5  # IoU
LEAST_PX = 0.1


def differs(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How `answer` differs from `expected`, in a few words; "" where it agrees.

    Both have `objects` with label, score and box. Each object of the one that is above the threshold by more than ten
    tolerances must be in the other, with a score within `tolerance` and a box within that share of its size; or, since
    of two overlapping boxes of nearly equal score either may be kept, one half over it with a score as near as that.
    """
    ours, theirs = expected.get("objects"), answer.get("objects")
    if not isinstance(ours, Sequence) or not isinstance(theirs, Sequence):
        return f"{str(answer)[:80]} instead of objects"
    sure = float(expected["threshold"]) + CLOSE * tolerance
    for said, others, what in ((ours, theirs, "is missing"), (theirs, ours, "was not expected")):
        free = list(others)
        for one in said:
            twin = next((other for other in free if _same(one, other, tolerance)), None)
            if twin is not None:
                free.remove(twin)
            elif float(one["score"]) > sure:
                return f"{one['label']} ({float(one['score']):.4f}) at {_said(one['box'])} {what}"
    return ""


def _same(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> bool:
    if one["label"] != other["label"]:
        return False
    apart = abs(float(one["score"]) - float(other["score"]))
    here, there = one["box"], other["box"]
    size = max(here[2] - here[0], here[3] - here[1])
    near = max(abs(a - b) for a, b in zip(here, there, strict=True)) <= max(LEAST_PX, tolerance * size)
    return (apart <= tolerance and near) or (apart <= CLOSE * tolerance and _iou(here, there) >= SAME_OBJECT)


def _iou(here: Sequence[float], there: Sequence[float]) -> float:
    width = min(here[2], there[2]) - max(here[0], there[0])
    height = min(here[3], there[3]) - max(here[1], there[1])
    both = max(width, 0) * max(height, 0)
    either = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (here, there)) - both
    return both / either if either > 0 else 0.0


def _said(box: Sequence[float]) -> str:
    return f"({', '.join(f'{edge:.1f}' for edge in box)})"
