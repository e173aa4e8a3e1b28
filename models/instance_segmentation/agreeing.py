"""Whether a service finds what the evaluation found. Travels in every Bento, which asks itself on every start."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.common.objects.masks import read_rle

CLOSE = 10  # tolerances: how near the threshold an object may be in one answer alone, and apart two of equal rank
PIXELS = 100  # tolerances: share of a mask's pixels that may differ, since each is a question of more or less than half
SAME_OBJECT = 0.5  # IoU of masks
LEAST_PX = 0.1


def differs(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How `answer` differs from `expected`, in a few words; "" where it agrees.

    Both have `objects` with label, score, box and mask. Each object of the one that is above the threshold by more than
    ten tolerances must be in the other, with a score within `tolerance`, a box within that share of its size and a
    mask within a hundred times that; or, since of two overlapping boxes of nearly equal score either may be kept, one
    half over it with a score as near as that.
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
                where = ", ".join(f"{edge:.1f}" for edge in one["box"])
                return f"{one['label']} ({float(one['score']):.4f}) at ({where}) {what}"
    return ""


def _same(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> bool:
    if one["label"] != other["label"]:
        return False
    apart = abs(float(one["score"]) - float(other["score"]))
    if apart > CLOSE * tolerance:
        return False
    here, there = one["box"], other["box"]
    size = max(here[2] - here[0], here[3] - here[1])
    near = max(abs(a - b) for a, b in zip(here, there, strict=True)) <= max(LEAST_PX, tolerance * size)
    overlap = _overlap(one["mask"], other["mask"])
    return (apart <= tolerance and near and overlap >= 1 - PIXELS * tolerance) or overlap >= SAME_OBJECT


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """IoU of two masks; 1 of two that are empty."""
    here, there = read_rle(one), read_rle(other)
    if (here.height, here.width) != (there.height, there.width):
        return 0.0
    if here == there:
        return 1.0
    both, either = here.array() & there.array(), here.array() | there.array()
    return int(np.count_nonzero(both)) / max(1, int(np.count_nonzero(either)))
