"""Is this the same voice? Pairs of recordings, how alike their embeddings are, and the equal error rate.

The error rate is that of the threshold at which as many pairs of one speaker are taken for two as pairs of two
speakers for one: where the ROC curve meets its falling diagonal, with straight lines between the curve's points.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.common.kind import Estimate

if TYPE_CHECKING:
    import pandas as pd

MAX_PAIRS = 10_000  # at most, of the same speaker, and as many of two
RESAMPLES_PER_BATCH = 32  # resamples: their pairs' weights stay in the processor's cache
Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows: positions of both, and whether one speaker is in both."""

    first: Positions
    second: Positions
    same: NDArray[np.bool_]

    def similarities(self, embeddings: NDArray[np.floating]) -> Floats:
        """Cosine of each pair of (N, dim) embeddings of length 1."""
        values = embeddings.astype(float)
        return np.asarray(np.einsum("ij,ij->i", values[self.first], values[self.second]))


def draw_pairs(labels: NDArray[np.object_], max_pairs: int = MAX_PAIRS) -> Pairs:
    """All pairs of one speaker and all of two, or `max_pairs` of each, drawn evenly: the same for the same labels."""
    codes = np.unique(labels.astype(str), return_inverse=True)[1].reshape(-1)
    order = np.argsort(codes, kind="stable")
    positions = np.arange(len(order))
    end = np.searchsorted(codes[order], codes[order], "right")  # where the speaker of each row ends
    same = _draw_pairs(positions + 1, end, max_pairs)
    other = _draw_pairs(end, np.full(len(order), len(order)), max_pairs)
    first, second = (order[np.concatenate(both)].astype(np.int64) for both in zip(same, other, strict=True))
    return Pairs(first, second, np.arange(len(first)) < len(same[0]))


def _draw_pairs(start: Positions, stop: Positions, max_pairs: int) -> tuple[Positions, Positions]:
    """Of the pairs of each row with those from its `start` to before its `stop`, all or `max_pairs`."""
    counts = stop - start
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers = np.arange(min(total, max_pairs))
    if total > max_pairs:  # by number, never listed: 20,000 recordings have 200 million pairs
        numbers = np.sort(np.random.default_rng(0).choice(total, max_pairs, replace=False))
    first = np.searchsorted(ends, numbers, "right")
    return first, start[first] + numbers - (ends - counts)[first] if total else first


def equal_error_rate(table: "pd.DataFrame") -> Estimate:
    """Of weights (resamples, examples), how often each example counts: a pair counts as often as both together.

    Columns: label, embedding. NaN where a resample has no pair of one speaker or none of two.
    """
    pairs = draw_pairs(table["label"].to_numpy(object))
    if not len(pairs.first):
        return lambda weights: np.full(len(weights), np.nan)
    similarity = pairs.similarities(np.stack(table["embedding"].to_list()))
    order = np.argsort(-similarity, kind="stable")
    first, second, same = pairs.first[order], pairs.second[order], pairs.same[order]
    last = np.append(np.diff(similarity[order]) != 0, True)  # of pairs that are equally alike

    def estimate(weights: Floats) -> Floats:
        parts = [
            weights[start : start + RESAMPLES_PER_BATCH].T for start in range(0, len(weights), RESAMPLES_PER_BATCH)
        ]
        return np.concatenate(
            [_error_rates(part[first] * part[second], same, last) for part in map(_contiguous, parts)]
        )

    return estimate


def _contiguous(weights: Floats) -> Floats:
    """One row for each example, in one piece: pairs then pick whole rows, and sums down the rows are quick."""
    return np.ascontiguousarray(weights)


def _error_rates(weights: Floats, same: NDArray[np.bool_], last: NDArray[np.bool_]) -> Floats:
    """(R,): the equal error rate of pairs with weights (P, R), the most alike pair first."""
    kinds = np.stack([same, ~same]).astype(float)
    totals = kinds @ weights
    shares = weights * np.where(same[:, None], *(1 / np.where(totals > 0, totals, 1)))
    # Per threshold: same pairs accepted + others accepted; 1 where they cross.
    accepted = np.cumsum(shares, axis=0)[last]
    crossing = np.argmax(accepted >= 1 - 1e-12, axis=0)
    ends = np.flatnonzero(last)
    rates = np.array([_crossing(shares[:, row], kinds, ends, crossing[row]) for row in range(weights.shape[1])])
    return np.where((totals > 0).all(axis=0), rates, np.nan)


def _crossing(shares: Floats, kinds: Floats, ends: Positions, crossing: np.int64) -> float:
    """Where falling rejections meet rising acceptances: before or at threshold `crossing`, on a straight line."""
    begin = ends[crossing - 1] + 1 if crossing else 0
    hits, alarms = kinds[:, :begin] @ shares[:begin]
    more_hits, more_alarms = kinds[:, begin : ends[crossing] + 1] @ shares[begin : ends[crossing] + 1]
    step = more_hits + more_alarms
    return float(alarms + more_alarms * (1 - hits - alarms) / step) if step else float(alarms)


def error_curve(similarity: Floats, same: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Thresholds from the highest down, the share of one speaker's pairs below each, of two speakers' pairs above."""
    order = np.argsort(-similarity, kind="stable")
    ranked, ordered = similarity[order], same[order]
    last = np.append(np.diff(ranked) != 0, True)
    hits, alarms = (np.append(0, np.cumsum(kind)[last] / kind.sum()) for kind in (ordered, ~ordered))
    return np.append(np.inf, ranked[last]), 1 - hits, alarms


def best_threshold(labels: NDArray[np.object_], embeddings: NDArray[np.floating]) -> float | None:
    """The similarity from which two recordings are called one speaker's: at the equal error rate of these, half way
    to the next lower one. None where there is no pair of one speaker, or none of two."""
    pairs = draw_pairs(labels)
    if pairs.same.all() or not pairs.same.any():
        return None
    thresholds, rejected, accepted = error_curve(pairs.similarities(embeddings), pairs.same)
    larger_error = np.maximum(rejected, accepted)
    minima = np.flatnonzero(larger_error == larger_error.min())
    lowest = min(minima[-1] + 1, len(thresholds) - 1)
    return float((thresholds[max(1, minima[0])] + thresholds[lowest]) / 2)
