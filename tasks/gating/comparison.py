"""The gate's inputs: two models' scores on the same test examples, what must hold before they can be compared, and
the words for a comparison. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.kind import Metric
from tasks.gating import statistics
from tasks.gating.verdict import Check
from tasks.project.policy import Gate


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's results on today's test examples.

    table: one row per test example: id, slice columns, what metrics need, optionally group; `label`, the class it is
        of, or `classes`, a list of those in it, unless answers are free text.
    labels: those the model knows; of free text its alphabet, which is not compared.
    trained_ids, trained_groups: what it was trained on, validation included.
    metrics: its summary, which floors refer to. budget: latency_ms, size_mb, memory_mb.
    """

    table: pd.DataFrame
    labels: tuple[str, ...] = ()
    trained_ids: frozenset[str] = frozenset()
    trained_groups: frozenset[str] = frozenset()
    metrics: Mapping[str, float] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Unloadable:
    """There is a champion, but its files cannot be read or run."""

    reason: str


@dataclass(frozen=True, eq=False)
class PairedScores:
    """The metric, the policy, and both models' rows in the same order; `champion` may be a trivial baseline."""

    metric: Metric
    policy: Gate
    candidate: pd.DataFrame
    champion: pd.DataFrame

    def subset(self, rows: "pd.Series[bool]") -> "PairedScores":
        chosen = rows.to_numpy(bool)
        return replace(self, candidate=self.candidate[chosen], champion=self.champion[chosen])

    def compare(self) -> statistics.Comparison:
        if self.metric.estimate:
            return statistics.compare_estimates(
                self.metric.estimate(self.candidate),
                self.metric.estimate(self.champion),
                group_codes(self.candidate),
                higher_is_better=self.metric.higher_is_better,
                resamples=self.policy.resamples,
            )
        return statistics.compare(
            self.metric.sums(self.candidate),
            self.metric.sums(self.champion),
            group_codes(self.candidate),
            higher_is_better=self.metric.higher_is_better,
            binary=self.metric.binary,
            resamples=self.policy.resamples,
        )

    def check(self, about: str, name: str) -> tuple[Check, statistics.Comparison]:
        """A check with its numbers, still undecided, and the comparison behind it."""
        comparison = self.compare()
        confidence = self.policy.confidence
        check = Check(about, name, "undecided", "", len(self.candidate))
        check = replace(
            check, gain=comparison.gain, lower=comparison.lower(confidence), upper=comparison.upper(confidence)
        )
        candidate_value, champion_value = self.metric.value(self.candidate), self.metric.value(self.champion)
        return replace(check, candidate=candidate_value, champion=champion_value, method=comparison.method), comparison


def compare_sets(
    metric: Metric, one: pd.DataFrame, other: pd.DataFrame, resamples: int
) -> statistics.ResampledComparison:
    """One score table against another of other examples, such as train against test: the gain is that of `one`.

    The groups of both are drawn together, so that the bounds hold whatever the two sizes are.
    """
    both = pd.concat([one, other], ignore_index=True)
    codes, better = group_codes(both), metric.higher_is_better
    if metric.estimate:
        first, second, size = metric.estimate(one), metric.estimate(other), len(one)
        return statistics.compare_estimates(
            lambda weights: first(weights[:, :size]),
            lambda weights: second(weights[:, size:]),
            codes,
            higher_is_better=better,
            resamples=resamples,
        )
    of_one = [np.concatenate([values, np.zeros(len(other))]) for values in metric.sums(one)]
    of_other = [np.concatenate([np.zeros(len(one)), values]) for values in metric.sums(other)]
    return statistics.compare_sums(
        (of_one[0], of_one[1]), (of_other[0], of_other[1]), codes, higher_is_better=better, resamples=resamples
    )


def compare_with_level(
    metric: Metric, table: pd.DataFrame, level: float, resamples: int
) -> statistics.ResampledComparison:
    """A score table against a fixed value of the metric."""
    codes, better = group_codes(table), metric.higher_is_better
    if metric.estimate:
        return statistics.compare_estimates(
            metric.estimate(table),
            lambda weights: np.full(len(weights), level),
            codes,
            higher_is_better=better,
            resamples=resamples,
        )
    numerator, denominator = metric.sums(table)
    return statistics.compare_sums(
        (numerator, denominator),
        (level * denominator, denominator),
        codes,
        higher_is_better=better,
        resamples=resamples,
    )


def problems(candidate: Scores, champion: Scores | None, metric: Metric, policy: Gate) -> Iterator[str]:
    """Why nothing may be decided: one sentence for each thing wrong with the inputs."""
    sides = {"candidate": candidate} | ({"champion": champion} if champion else {})
    side_problems = [problem for side, scores in sides.items() for problem in _side_problems(side, scores, metric)]
    yield from side_problems
    if champion is not None and not side_problems:
        candidate_ids, champion_ids = set(candidate.table["id"]), set(champion.table["id"])
        if candidate_ids != champion_ids:
            difference = f"{len(candidate_ids ^ champion_ids):,} test examples are not in both"
            yield f"candidate and champion were scored on different test sets: {difference}"
    for name in policy.floors:
        if name not in candidate.metrics:
            yield f"floors name '{name}', which is not measured; there are: {', '.join(sorted(candidate.metrics))}"
    for name in policy.slices:
        if name not in candidate.table:
            yield f"slices name '{name}', which is no column of the test examples; there are: {_columns(candidate)}"


def _side_problems(side: str, scores: Scores, metric: Metric) -> Iterator[str]:
    table = scores.table
    used = [name for name in (metric.numerator, metric.denominator) if name]
    missing = [name for name in ("id", *used) if name not in table]
    if missing or table.empty:
        yield f"the {side}'s scores have no {' and no '.join(missing) or 'test examples'}"
        return
    yield from _value_problems(side, table, metric)
    for name, value in {**scores.metrics, **scores.budget}.items():
        if not np.isfinite(value):
            yield f"{name} of the {side} is {value}, not a finite number"
    yield from _test_set_problems(side, scores)


def _value_problems(side: str, table: pd.DataFrame, metric: Metric) -> Iterator[str]:
    if metric.estimate:
        value = metric.value(table)
        if not np.isfinite(value):
            yield f"{metric.name} of the {side} is {value}, not a finite number"
        return
    values = table[[name for name in (metric.numerator, metric.denominator) if name]].to_numpy(float)
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        yield f"{metric.name} of the {side} is not a finite number on {bad:,} of {len(table):,} test examples"
    elif metric.binary and not np.isin(values, (0, 1)).all():
        yield f"{metric.numerator} of the {side} must be 0 or 1 for each example"
    elif metric.denominator and (values[:, 1].min() < 0 or values[:, 1].sum() == 0):
        yield f"{metric.denominator} of the {side} must not be negative, nor 0 on all examples"


def _test_set_problems(side: str, scores: Scores) -> Iterator[str]:
    table = scores.table
    repeated = int(table["id"].duplicated().sum())
    if repeated:
        yield f"{repeated:,} test examples of the {side} appear more than once"
    in_training = table["id"].isin(scores.trained_ids)
    if "group" in table:
        in_training |= table["group"].notna() & table["group"].isin(scores.trained_groups)
    if in_training.any():
        yield (
            f"{int(in_training.sum()):,} of {len(table):,} test examples are in the {side}'s training data, or of a"
            " group that is; its score on them proves nothing. Take out the batch that brought them: ratchet remove"
        )


def group_codes(table: pd.DataFrame) -> NDArray[np.int64]:
    """Integers, equal for examples of one group; an example without a group is one of its own."""
    own_group = "example " + table["id"].astype(str)
    if "group" not in table:
        return pd.factorize(own_group)[0]
    return pd.factorize(("group " + table["group"].astype(str)).where(table["group"].notna(), own_group))[0]


def _columns(scores: Scores) -> str:
    return ", ".join(sorted(map(str, scores.table.columns)))


def percent(policy: Gate) -> str:
    return f"{policy.confidence * 100:g} %"


def number(value: float) -> str:
    return f"{value:.3f}"


def signed(value: float) -> str:
    return f"{value:+.3f}" if value == 0 or abs(value) >= 0.0005 else f"{value:+.1g}"


def change(check: Check, metric: Metric) -> str:
    direction = "" if metric.higher_is_better else ", less is better"
    values = f"{number(check.champion or 0)} → {number(check.candidate or 0)}"
    return f"{metric.name} {values}: gain {signed(check.gain or 0)}{direction}"


def on_examples(check: Check) -> str:
    return f"on {check.examples:,} test examples"
