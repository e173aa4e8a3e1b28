"""What a training looks like: a candidate that is worse is told from a training that went wrong. Pure.

It decides nothing: the verdict is the gate's, and this adds at most one sentence to the reasons of a HOLD or a REJECT.
What is said of the metric is said only where it is sure, at the policy's confidence: training and test examples are
different ones, so whole groups of both are drawn together (comparison.compare_sets). docs/gate.md explains each case.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from models.common.kind import Metric
from tasks.gating import statistics
from tasks.gating.comparison import Scores, Unloadable, compare_sets, compare_with_level, number, percent
from tasks.gating.gate import against_trivial
from tasks.gating.verdict import Diagnosis, Looks, Verdict
from tasks.project.policy import Gate

RESAMPLES = 1_000  # bounds good to about 1/10 of the interval: enough for a hint
HIGH_RATE = 0.5  # share of the highest learning rate; the last stretch brings it from 1 to 0


@dataclass(frozen=True, eq=False)
class Training:
    """What is known of how a candidate was trained; each part may be missing.

    table: its scores on a sample of its training examples, as those on the test. summary: training/summary.json.
    history: training/history.csv, a row per epoch. new_batches: see Diagnosis.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: Mapping[str, Any] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    new_batches: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Case:
    """All that is looked at. `champion`: its score table on the same test examples."""

    training: Training
    test: pd.DataFrame
    champion: pd.DataFrame | None
    metric: Metric
    policy: Gate
    verdict: Verdict

    @property
    def floor(self) -> float | None:
        return self.policy.floors.get(self.metric.name)

    @property
    def no_batch(self) -> str:
        return ", rather than look for a bad batch" if self.training.new_batches else ""

    @property
    def has_sample(self) -> bool:
        return len(self.training.table) >= self.policy.slice_min

    def compare(self, one: pd.DataFrame, other: pd.DataFrame) -> statistics.Comparison:
        return compare_sets(self.metric, one, other, min(RESAMPLES, self.policy.resamples))

    def compare_with_floor(self) -> statistics.Comparison:
        assert self.floor is not None
        return compare_with_level(self.metric, self.training.table, self.floor, min(RESAMPLES, self.policy.resamples))

    def known_before(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of batches that are not new; all of them where those are too few."""
        rows = table[~table["batch"].isin(self.training.new_batches)] if "batch" in table else table
        return rows if len(rows) >= self.policy.slice_min else table

    def value(self, table: pd.DataFrame) -> str:
        return number(self.metric.value(table))


_Found = tuple[Looks, str]


def explain(
    verdict: Verdict,
    training: Training,
    candidate: Scores,
    champion: Scores | Unloadable | None,
    policy: Gate,
    metrics: Sequence[Metric],
) -> Verdict:
    """The same verdict with its diagnosis, and with one further reason where it is a HOLD or a REJECT that a training
    may explain. An ERROR stays as it is: its numbers mean nothing."""
    if verdict.outcome == "ERROR":
        return verdict
    metric = next(metric for metric in metrics if metric.name == policy.metric)
    champion_table = champion.table if isinstance(champion, Scores) else None
    found = diagnose(verdict, training, candidate.table, champion_table, policy, metric)
    failed = {check.about for check in verdict.checks if check.status == "fail"}
    explains = verdict.outcome != "PROMOTE" and failed != {"budget"}  # what a program costs, no training changes
    further = (found.message,) if found.message and explains else ()
    return replace(verdict, diagnosis=found, reasons=(*verdict.reasons, *further))


def diagnose(
    verdict: Verdict,
    training: Training,
    test: pd.DataFrame,
    champion: pd.DataFrame | None,
    policy: Gate,
    metric: Metric,
) -> Diagnosis:
    """What the training looks like; of several things, the one that explains the others."""
    case = _Case(training, test, champion, metric, policy, verdict)
    known = len(training.table) > 0 or len(training.history) > 0
    looks, message = next(_findings(case), ("nothing wrong seen" if known else "not known", ""))
    return Diagnosis(
        looks,
        message,
        train=metric.value(training.table) if len(training.table) else None,
        train_examples=len(training.table),
        test=metric.value(test),
        epochs_run=training.summary.get("epochs_run"),
        kept_epoch=training.summary.get("best_epoch"),
        stopped_early=training.summary.get("stopped_early"),
        new_batches=training.new_batches,
    )


def _findings(case: _Case) -> Iterator[_Found]:
    finders: tuple[Callable[[_Case], _Found | None], ...] = (_diverged, _batch, _not_fitted, _unfinished, _overfitted)
    return (found for finder in finders if (found := finder(case)))


def _diverged(case: _Case) -> _Found | None:
    """The loss ended above the first epoch's, when the network knew least, by more than its own lowest value: the mean
    over an epoch moves by a few percent from one to the next, not by its own size."""
    losses = _column(case.training.history, "train_loss")
    if len(losses) < 2 or not np.isfinite(losses[0]):
        return None
    last, lowest, kept = losses[-1], float(np.nanmin(losses)), case.training.summary.get("best_epoch")
    if np.isfinite(last) and last - lowest <= max(losses[0] - lowest, abs(lowest)):
        return None
    return "diverged", (
        f"the training diverged: its loss was {lowest:.3g} after epoch {int(np.nanargmin(losses)) + 1} and {last:.3g}"
        f" after epoch {len(losses)}, the last" + (f" (epoch {kept} was kept)" if kept else "") + "; lower"
        f" train.learning_rate or lengthen train.warmup_epochs{case.no_batch}"
    )


def _batch(case: _Case) -> _Found | None:
    """A new batch on whose examples the candidate is worse than on the others, of train or of test: surely by more than
    a slice of the data may lose."""
    found = [(name, where, rows, rest, case.compare(rows, rest)) for name, where, rows, rest in _batch_parts(case)]
    adjusted = statistics.holm([comparison.p_below(-case.policy.slice_tolerance) for *_, comparison in found])
    if not adjusted or min(adjusted) >= 1 - case.policy.confidence:
        return None
    name, where, rows, rest, _ = found[int(np.argmin(adjusted))]
    return "batch differs", (
        f"batch {name}, new since the champion, stands out: {case.metric.name} {case.value(rows)} on {len(rows):,}"
        f" {where} examples of it, {case.value(rest)} on {len(rest):,} of other batches; look at its labels: wrong ones"
        " (take it out: ratchet remove), or examples of a harder sort"
    )


def _batch_parts(case: _Case) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """New batch, train or test, its rows and those of the others, where there are enough of both."""
    tables = {"training": case.training.table, "test": case.test}
    for where, table in tables.items():
        if "batch" in table:
            for name in case.training.new_batches:
                rows, rest = table[table["batch"] == name], table[table["batch"] != name]
                if min(len(rows), len(rest)) >= case.policy.slice_min:
                    yield name, where, rows, rest


def _not_fitted(case: _Case) -> _Found | None:
    """On examples that it was trained on surely below what is asked of it on others: by the champion, else by the
    floor of the metric; or not surely better than a model that learnt nothing."""
    if not case.has_sample or not (missing := _behind_champion(case) if case.champion is not None else _below(case)):
        return None
    table, reference = missing
    return "did not fit", (
        f"the training did not fit its own examples: {case.metric.name} {case.value(table)} on {len(table):,} of them,"
        f" and {reference}; raise train.epochs, train.learning_rate or the network's size{case.no_batch}"
    )


def _behind_champion(case: _Case) -> tuple[pd.DataFrame, str] | None:
    """The training examples that were looked at, and what the champion does on others. New batches, which may be bad,
    are left out. Where the candidate is surely better on the test, training examples are the harder ones, or wrongly
    labelled, and that the champion would do better on those is not known."""
    assert case.champion is not None
    table, asked, test = (case.known_before(rows) for rows in (case.training.table, case.champion, case.test))
    confidence, primary = case.policy.confidence, case.verdict.primary
    upper = case.compare(table, asked).upper(confidence)
    ahead_on_test = primary is not None and (primary.gain or 0) >= 0
    if upper >= 0 or ahead_on_test or case.compare(table, test).upper(confidence) < 0:
        return None
    return table, f"the champion has {case.value(asked)} on test examples ({_apart(upper, case.policy)})"


def _below(case: _Case) -> tuple[pd.DataFrame, str] | None:
    """The same for a first model: its training examples, and the floor, or what a model that learnt nothing is."""
    table, policy = case.training.table, case.policy
    if case.floor is not None and (upper := case.compare_with_floor().upper(policy.confidence)) < 0:
        return table, f"{number(case.floor)} is the floor ({_apart(upper, policy)})"
    check = against_trivial(Scores(table), case.metric, policy)
    if check.status not in {"fail", "undecided"}:
        return None
    return table, f"that is not surely better than {check.message.split(':')[0].removeprefix('against ')}"


def _unfinished(case: _Case) -> _Found | None:
    """The weights that were kept are of an epoch after which the learning rate was still high: a lucky one."""
    summary, rates = case.training.summary, _column(case.training.history, "learning_rate")
    kept, decay = summary.get("best_epoch"), summary.get("decay_from_epoch") or np.inf
    if not kept or kept >= min(len(rates), decay) or not np.isfinite(rates).all() or rates.max() <= 0:
        return None
    share = rates[kept - 1 :].max() / rates.max()  # of what came after it, too: an epoch of the warm-up is early
    if share < HIGH_RATE:
        return None
    stopped = bool(summary.get("stopped_early"))
    return "stopped early", (
        f"the training looks unfinished: of {len(rates)} epochs{', which early stopping ended,' if stopped else ''}"
        f" epoch {kept} was kept, at {100 * share:.0f} % of the highest learning rate, perhaps a lucky one; add"
        f" validation examples, which chose it{', or raise train.early_stopping (0: off)' if stopped else ''}"
        f"{case.no_batch}"
    )


def _overfitted(case: _Case) -> _Found | None:
    """On its training examples surely above what was asked of it, on the test surely below them and refused."""
    if not case.has_sample or not _misses_the_mark(case):
        return None
    confidence, table = case.policy.confidence, case.training.table
    gap = case.compare(table, case.test).lower(confidence)
    if gap <= 0 or not _fits_well(case):
        return None
    return "overfitted", (
        f"much better on train than on test: {case.metric.name} {case.value(table)} on {len(table):,} of its training"
        f" examples, {case.value(case.test)} on test ({_apart(gap, case.policy)}); it learnt them by heart, as"
        " it does wrong labels: more data or augmentation, a higher train.weight_decay or fewer train.epochs"
    )


def _misses_the_mark(case: _Case) -> bool:
    """Whether the metric itself is why the candidate is refused."""
    missed = {(check.about, check.status) for check in case.verdict.checks if check.name == case.metric.name}
    return bool(missed & {("primary", "fail"), ("floor", "fail"), ("baseline", "fail"), ("baseline", "undecided")})


def _fits_well(case: _Case) -> bool:
    """Whether it would surely have been good enough, were training examples the test."""
    if case.champion is not None:
        return case.compare(case.training.table, case.champion).lower(case.policy.confidence) > 0
    if case.floor is not None:
        return case.compare_with_floor().lower(case.policy.confidence) > 0
    return against_trivial(Scores(case.training.table), case.metric, case.policy).status == "pass"


def _apart(bound: float, policy: Gate) -> str:
    return f"{percent(policy)} bound: at least {number(abs(bound))} apart"


def _column(history: pd.DataFrame, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return history[name].to_numpy(float) if name in history else np.empty(0)
