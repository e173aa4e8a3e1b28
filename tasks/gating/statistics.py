"""How sure we are that one model is better than another on the same examples. Pure functions of numbers.

Two ways of comparing, each with bounds and p-values that agree with one another (a bound is where the p-value crosses):

- right or wrong, examples independent: McNemar's test, and Tango's score interval (Stat. Med. 17, 891-908, 1998), which
  is McNemar's asymptotic test turned into an interval. Under 25 examples on which the two differ, the exact mid-p
  version (Fagerland et al., BMC Med. Res. Methodol. 13:91, 2013) has to agree too: the wider of both bounds counts.
- anything else, or examples that come in groups: the paired cluster bootstrap, resampling whole groups, with the
  expanded percentiles of Hesterberg (The American Statistician 69, 371-386, 2015) for few groups. The bounds are found
  from the p-values, so the two cannot differ.

A gain is always counted so that more is better; bounds are one-sided, each at the confidence asked for.
"""

import bisect
import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from models.common.kind import Estimate

EXACT_BELOW = 25  # examples on which the two models differ; below it the normal approximation alone is not trusted
POWER = 0.8  # chance of deciding that `examples_to_decide` aims at
CHUNK = 2**20  # weights held at a time by the bootstrap: 8 MiB each of a few arrays
MAX_ESTIMATE_RESAMPLES = (
    2_000  # resamples of a metric that is computed anew for each: bounds good to 1/20 of the interval
)
ESTIMATE_BATCH_SIZE = 250  # of those resamples
Floats = NDArray[np.float64]


class Comparison(Protocol):
    """A paired comparison. `standard_error` is that of `gain`."""

    @property
    def gain(self) -> float: ...
    @property
    def standard_error(self) -> float: ...
    @property
    def method(self) -> str: ...
    def lower(self, confidence: float) -> float:
        """The gain is above this, with that confidence."""

    def upper(self, confidence: float) -> float:
        """The gain is below this, with that confidence."""

    def p_above(self, threshold: float) -> float:
        """One-sided p-value against "the gain is at most `threshold`"."""

    def p_below(self, threshold: float) -> float:
        """One-sided p-value against "the gain is at least `threshold`"."""


@dataclass(frozen=True)
class BinaryComparison:
    """Right or wrong on `examples` independent ones: only the candidate right on `wins`, only the other on `losses`."""

    wins: int
    losses: int
    examples: int

    @property
    def gain(self) -> float:
        return (self.wins - self.losses) / self.examples

    @property
    def standard_error(self) -> float:
        return math.sqrt(max(0.0, (self.wins + self.losses) / self.examples - self.gain**2) / self.examples)

    @property
    def method(self) -> str:
        return "McNemar, exact mid-p" if self.wins + self.losses < EXACT_BELOW else "McNemar, asymptotic"

    def lower(self, confidence: float) -> float:
        return _where_p_crosses(self.wins, self.losses, self.examples, 1 - confidence)

    def upper(self, confidence: float) -> float:
        return -_where_p_crosses(self.losses, self.wins, self.examples, 1 - confidence)

    def p_above(self, threshold: float) -> float:
        return paired_p(self.wins, self.losses, self.examples, threshold)

    def p_below(self, threshold: float) -> float:
        return paired_p(self.losses, self.wins, self.examples, -threshold)


@dataclass(frozen=True, eq=False)
class ResampledComparison:
    """Gains of `resamples` draws of `groups` groups with replacement."""

    gain: float
    resampled: Floats
    groups: int

    @property
    def standard_error(self) -> float:
        return float(self.resampled.std())

    @property
    def method(self) -> str:
        return f"paired bootstrap over {self.groups:,} groups, {len(self.resampled):,} resamples"

    def lower(self, confidence: float) -> float:
        rank = self._rank(confidence)
        return -math.inf if rank < 1 else float(np.partition(self.resampled, rank - 1)[rank - 1])

    def upper(self, confidence: float) -> float:
        rank = self._rank(confidence)
        return math.inf if rank < 1 else float(np.partition(self.resampled, -rank)[-rank])

    def p_above(self, threshold: float) -> float:
        return self._p(int(np.count_nonzero(self.resampled <= threshold)))

    def p_below(self, threshold: float) -> float:
        return self._p(int(np.count_nonzero(self.resampled >= threshold)))

    def _rank(self, confidence: float) -> int:
        """Which resample, counted from the lowest, is the lower bound: that many have a p-value under 1 - confidence.
        0: there are too few groups, or too few resamples, for any bound."""
        return bisect.bisect_left(range(len(self.resampled) + 1), 1 - confidence, key=self._p)

    def _p(self, beyond: int) -> float:
        """Of a threshold with `beyond` resamples on its wrong side: their share, larger for few groups (Hesterberg),
        and never less than the chance that all groups agree by luck."""
        if self.groups < 2:
            return 1.0
        narrowed = math.sqrt((self.groups - 1) / self.groups) * special.ndtri((1 + beyond) / (1 + len(self.resampled)))
        return max(0.5**self.groups, float(special.stdtr(self.groups - 1, narrowed)))


def min_groups(confidence: float) -> int:
    """Groups needed for a bound: with fewer, even all of them agreeing could be luck (2^-groups >= 1 - confidence)."""
    return max(2, math.floor(-math.log2(1 - confidence)) + 1)


def mcnemar_mid_p(wins: int, losses: int, share: float = 0.5) -> float:
    """Exact mid-p of at least `wins` wins among wins + losses, were each a win with probability `share`."""
    differing = wins + losses
    at_most = float(special.bdtr(wins, differing, share))
    below = float(special.bdtr(wins - 1, differing, share)) if wins else 0.0
    return 1 - (at_most + below) / 2


def tango_z(wins: int, losses: int, examples: int, threshold: float) -> float:
    """Tango's score statistic for "the gain is `threshold`"; at 0 it is McNemar's, (wins - losses) / sqrt(both)."""
    a = 2 * examples
    b = -wins - losses + (2 * examples - wins + losses) * threshold
    c = -losses * threshold * (1 - threshold)
    loss_share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = examples * (2 * loss_share + threshold * (1 - threshold))
    distance = wins - losses - examples * threshold
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def paired_p(wins: int, losses: int, examples: int, threshold: float = 0.0) -> float:
    """One-sided p-value against "the gain is at most `threshold`"."""
    if threshold >= 1:  # no gain is more
        return 1.0
    score = float(special.ndtr(-tango_z(wins, losses, examples, threshold)))
    differing = wins + losses
    if not 0 < differing < EXACT_BELOW:
        return score
    share = (1 + threshold * examples / differing) / 2  # of wins among the differing, if the gain were the threshold
    if not 0 < share < 1:  # no such number of differing examples could give that gain
        return score if share <= 0 else 1.0
    return max(score, mcnemar_mid_p(wins, losses, share))


def _where_p_crosses(wins: int, losses: int, examples: int, alpha: float) -> float:
    """The least threshold, to the last bit, at which paired_p is not under `alpha`: p grows with the threshold."""
    low, high = -1.0, 1.0
    if paired_p(wins, losses, examples, low) >= alpha:
        return low
    while low < (middle := (low + high) / 2) < high:
        if paired_p(wins, losses, examples, middle) < alpha:
            low = middle
        else:
            high = middle
    return high


def compare(
    candidate: tuple[ArrayLike, ArrayLike],
    champion: tuple[ArrayLike, ArrayLike],
    groups: ArrayLike,
    *,
    higher_is_better: bool = True,
    binary: bool = False,
    resamples: int = 10_000,
) -> Comparison:
    """Compares two models on the same examples.

    candidate, champion: numerators and denominators, each (examples,); the metric is sum / sum.
    groups: (examples,) integers; examples of one group are not independent of each other.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    if binary and codes.max(initial=-1) + 1 == len(codes):
        right, other = np.asarray(candidate[0], bool), np.asarray(champion[0], bool)
        return BinaryComparison(int((right & ~other).sum()), int((other & ~right).sum()), len(right))
    return compare_sums(candidate, champion, codes, higher_is_better=higher_is_better, resamples=resamples)


def compare_sums(
    candidate: tuple[ArrayLike, ArrayLike],
    champion: tuple[ArrayLike, ArrayLike],
    groups: ArrayLike,
    *,
    higher_is_better: bool = True,
    resamples: int = 10_000,
) -> ResampledComparison:
    """The paired cluster bootstrap, whatever the values are. An example that one of the two was not asked has 0 as its
    numerator and its denominator there."""
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    columns = [np.bincount(codes, np.asarray(values, float)) for values in (*candidate, *champion)]
    return _bootstrap(np.stack(columns, axis=1), 1 if higher_is_better else -1, resamples)


def _bootstrap(sums: Floats, sign: int, resamples: int) -> ResampledComparison:
    """`sums` (groups, 4): numerator and denominator of the candidate, then of the champion."""
    rows, codes = _distinct(sums)
    rng = np.random.default_rng(_seed(sums))
    step = max(1, CHUNK // (len(sums) + len(rows)))
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    totals = np.concatenate([_draw(rng, codes, len(rows), size) @ rows for size in sizes])
    return ResampledComparison(float(_gains(sums.sum(axis=0), sign)), _gains(totals, sign), len(sums))


def compare_estimates(
    candidate: Estimate,
    champion: Estimate,
    groups: ArrayLike,
    *,
    higher_is_better: bool = True,
    resamples: int = MAX_ESTIMATE_RESAMPLES,
) -> ResampledComparison:
    """Compares two models by a metric that is no ratio of sums: both are computed anew for every resample.

    candidate, champion: each a function of weights (resamples, examples), giving values (resamples,).
    A resample in which either is undefined (no example of a class was drawn) counts as no gain.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    count, sign = int(codes.max(initial=-1)) + 1, 1 if higher_is_better else -1
    whole = np.ones((1, len(codes)))
    candidate_value, champion_value = float(candidate(whole)[0]), float(champion(whole)[0])
    rng = np.random.default_rng(_seed_of(codes, candidate_value, champion_value))
    resamples = min(resamples, MAX_ESTIMATE_RESAMPLES)
    step = max(1, min(ESTIMATE_BATCH_SIZE, CHUNK // max(1, len(codes))))
    gains = []
    for start in range(0, resamples, step):
        weights = rng.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - start))[:, codes]
        gains.append(sign * (candidate(weights.astype(float)) - champion(weights.astype(float))))
    return ResampledComparison(
        sign * (candidate_value - champion_value), np.nan_to_num(np.concatenate(gains), nan=0.0), count
    )


def _seed_of(codes: NDArray[np.int64], *values: float) -> int:
    content = codes.astype(np.int64).tobytes() + np.sort(np.array(values)).tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8])


def _distinct(sums: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Different rows and, for each group, which of them it has. In order of appearance, not of value, so that
    exchanging the two models mirrors the result exactly."""
    _, first, inverse = np.unique(sums, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return sums[first[order]], np.argsort(order)[inverse.reshape(-1)]


def _draw(rng: np.random.Generator, codes: NDArray[np.int64], rows: int, size: int) -> Floats:
    """(size, rows): how often each row is drawn when as many groups as there are get drawn with replacement."""
    groups = len(codes)
    if rows * 8 < groups:  # few different rows, as with counts of errors: one multinomial over them is faster
        return rng.multinomial(groups, np.bincount(codes) / groups, size=size).astype(float)
    drawn = codes[rng.integers(0, groups, size=(size, groups), dtype=np.int32)] + np.arange(size)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(float)


def _gains(totals: Floats, sign: int) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = sign * (totals[..., 0] / totals[..., 1] - totals[..., 2] / totals[..., 3])
    return np.asarray(np.nan_to_num(gains, nan=0.0, posinf=0.0, neginf=0.0))  # a resample of empty references only


def _seed(sums: Floats) -> int:
    """The same for the same inputs, whichever of the two models is called the candidate."""
    halves = sorted(np.ascontiguousarray(half).tobytes() for half in (sums[:, :2], sums[:, 2:]))
    return int.from_bytes(hashlib.sha256(b"".join(halves)).digest()[:8])


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Stat. 6, 65-70, 1979), in the order given."""
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def wilson(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Lower and upper bound of a share, each one-sided at `confidence` (Wilson, JASA 22, 209-212, 1927)."""
    if trials == 0:
        return 0.0, 1.0
    z = float(special.ndtri(confidence))
    share, square = successes / trials, z * z / trials
    half_width = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    centre = share + square / 2
    return max(0.0, (centre - half_width) / (1 + square)), min(1.0, (centre + half_width) / (1 + square))


def examples_to_decide(comparison: Comparison, examples: int, threshold: float, confidence: float) -> int | None:
    """About how many more test examples would decide, 8 times in 10, if the gain stays the same; None: no number would.

    The standard error falls with the square root of the number of examples.
    """
    distance = abs(comparison.gain - threshold)
    if distance == 0 or comparison.standard_error == 0:
        return None
    reach = float(special.ndtri(confidence) + special.ndtri(POWER)) * comparison.standard_error / distance
    more = max(examples * (reach**2 - 1), 1.0)
    digits = int(10 ** max(0, math.floor(math.log10(more)) - 1))  # two significant digits: it is an estimate
    return math.ceil(more / digits) * digits
