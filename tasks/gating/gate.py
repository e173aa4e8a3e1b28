"""The gate: candidate scores, champion scores and a policy go in, a verdict with its reasons comes out.

Pure: no files, no clock, no randomness but what is seeded from the inputs. Same inputs, same verdict.
docs/gate.md explains each number and shows how often it errs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from models.common.kind import Metric
from tasks.gating import statistics
from tasks.gating.comparison import (
    PairedScores,
    Scores,
    Unloadable,
    change,
    group_codes,
    number,
    on_examples,
    percent,
    problems,
    signed,
)
from tasks.gating.verdict import Check, Status, Verdict
from tasks.project.policy import Gate

__all__ = ["Check", "Scores", "Unloadable", "Verdict", "decide"]

UNITS = {"latency_ms": "ms", "size_mb": "MB", "memory_mb": "MB"}
TRIVIAL = "trivial_"  # a kind may give the column trivial_<numerator>: what a model that learnt nothing would score


def decide(candidate: Scores, champion: Scores | Unloadable | None, policy: Gate, metrics: Sequence[Metric]) -> Verdict:
    """Judges a candidate against the champion (None: there is none yet) by the policy; `metrics` are the kind's."""
    base = Verdict("ERROR", (), metric=policy.metric, confidence=policy.confidence)
    metric = next((metric for metric in metrics if metric.name == policy.metric), None)
    if metric is None:
        known = ", ".join(metric.name for metric in metrics)
        return replace(base, reasons=(f"the policy's metric '{policy.metric}' is unknown; there are: {known}",))
    champion_scores = champion if isinstance(champion, Scores) else None
    found_problems = tuple(problems(candidate, champion_scores, metric, policy))
    if found_problems:
        return replace(base, reasons=found_problems)
    floors = _floors(candidate, policy, metrics)
    if isinstance(champion, Unloadable):
        message = f"the champion cannot be loaded, so nothing can be compared: {champion.reason}"
        return replace(base, outcome="HOLD", reasons=(message,), checks=floors)
    checks = floors + _budgets(candidate, champion_scores, policy)
    if champion_scores is None:
        return _conclude(replace(base, first=True), (against_trivial(candidate, metric, policy), *checks))
    return _conclude(base, (*_against_champion(candidate, champion_scores, metric, policy), *checks))


def _conclude(base: Verdict, checks: tuple[Check, ...]) -> Verdict:
    """What fails comes first in the reasons, then what is undecided, what passed, and further information."""
    order: tuple[Status, ...] = ("fail", "undecided", "pass", "info")
    ranked = sorted(checks, key=lambda check: (order.index(check.status), check.about not in {"primary", "baseline"}))
    worst = ranked[0].status if ranked else "pass"
    outcome = {"fail": "REJECT", "undecided": "HOLD"}.get(worst, "PROMOTE")
    sentences = [check.message for check in ranked if check.about not in {"class", "slice"} or check.status == "fail"]
    first = ["first model: there is no champion to compare with"] if base.first else []
    sentences = [*first, *sentences] if outcome == "PROMOTE" else [*sentences, *first]  # the decisive ones come first
    reasons = (*sentences, *_slice_summary(checks))
    return replace(base, outcome=outcome, reasons=reasons, checks=checks)  # type: ignore[arg-type]


# 1. Shared labels, and 3. the primary metric


def _against_champion(candidate: Scores, champion: Scores, metric: Metric, policy: Gate) -> tuple[Check, ...]:
    candidate_table = candidate.table.sort_values("id").reset_index(drop=True)
    champion_table = champion.table.sort_values("id").reset_index(drop=True)
    pairs = PairedScores(metric, policy, candidate_table, champion_table)
    if "label" not in candidate_table and "classes" not in candidate_table:
        return (_primary(pairs), *_slices(pairs, []))
    shared = sorted(set(candidate.labels) & set(champion.labels))
    if set(candidate.labels) == set(champion.labels):
        return (_primary(pairs), *_slices(pairs, shared))
    if metric.of_classes and shared:
        pairs = replace(pairs.subset(_rows_with_any(candidate_table, shared)), metric=metric.of_classes(tuple(shared)))
    else:
        pairs = pairs.subset(_rows_with_any(candidate_table, shared))
    notes = (
        _label_check(candidate, champion, pairs),
        *_new_classes(candidate_table, candidate, champion, metric, policy),
    )
    if pairs.candidate.empty:
        message = "no test example has a label that both models know, so nothing can be compared"
        return (Check("primary", metric.name, "undecided", message, 0), *notes)
    return (_primary(pairs), *notes, *_slices(pairs, shared))


def _rows_with_any(table: pd.DataFrame, labels: Sequence[str]) -> "pd.Series[bool]":
    """Rows of these classes, or with any of them inside."""
    if "label" in table:
        return table["label"].isin(labels)
    names = set(labels)
    return table["classes"].map(lambda inside: not names.isdisjoint(inside)).astype(bool)


def _label_check(candidate: Scores, champion: Scores, pairs: PairedScores) -> Check:
    new = sorted(set(candidate.labels) - set(champion.labels))
    removed = sorted(set(champion.labels) - set(candidate.labels))
    parts = [f"{word} {', '.join(names)}" for word, names in (("new:", new), ("removed:", removed)) if names]
    message = f"the labels changed ({'; '.join(parts)}): compared on {len(pairs.candidate):,} examples of shared labels"
    return Check("labels", "shared", "info", message, len(pairs.candidate))


def _new_classes(
    table: pd.DataFrame, candidate: Scores, champion: Scores, metric: Metric, policy: Gate
) -> Iterator[Check]:
    """A new class must be recognised better than by chance: the lower bound of its recall above 1 / classes."""
    chance = 1 / max(1, len(candidate.labels))
    for label in sorted(set(candidate.labels) - set(champion.labels)):
        rows = table[_rows_with_any(table, [label])]
        check = Check("new class", label, "info", "", len(rows), limit=chance)
        if len(rows) < policy.slice_min or not metric.binary:
            reason = f"{len(rows)} test examples" if metric.binary else f"{metric.name} has no chance level"
            yield replace(check, message=f"new class {label}: not judged ({reason})")
            continue
        recall = metric.value(rows)
        lower, upper = statistics.wilson(recall * len(rows), len(rows), policy.confidence)
        bound = f"{percent(policy)} lower bound {number(lower)}; chance is {number(chance)}"
        message = f"new class {label}: {metric.name} {number(recall)} on {len(rows):,} test examples ({bound})"
        status: Status = "pass" if lower > chance else "fail"
        yield replace(check, status=status, message=message, candidate=recall, lower=lower, upper=upper)


def _primary(pairs: PairedScores, about: str = "primary") -> Check:
    policy = pairs.policy
    inferior = policy.rule == "non_inferior" and about == "primary"
    must_exceed, worse_below = (-policy.margin, -policy.margin) if inferior else (policy.min_gain, 0.0)
    if about == "baseline":
        must_exceed = 0.0
    check, comparison = pairs.check(about, pairs.metric.name)
    check = replace(check, p=comparison.p_above(must_exceed), limit=must_exceed)
    lower, upper = comparison.lower(policy.confidence), comparison.upper(policy.confidence)
    if lower > must_exceed:
        bound = f"{percent(policy)} lower bound {signed(lower)}"
        return replace(check, status="pass", message=f"{change(check, pairs.metric)} ({bound}) {on_examples(check)}")
    if upper < worse_below:
        bound = f"{percent(policy)} upper bound {signed(upper)}"
        return replace(
            check, status="fail", message=f"{change(check, pairs.metric)} ({bound}) {on_examples(check)}: worse"
        )
    bounds = f" ({percent(policy)} bounds {signed(lower)} to {signed(upper)})" if np.isfinite(lower) else ""
    why = _undecided(check, comparison, must_exceed, worse_below, policy)
    return replace(check, message=f"{change(check, pairs.metric)}{bounds} {on_examples(check)}: {why}")


def _undecided(
    check: Check, comparison: statistics.Comparison, must_exceed: float, worse_below: float, policy: Gate
) -> str:
    """Why not, and about how many more test examples would decide."""
    if isinstance(comparison, statistics.ResampledComparison) and not np.isfinite(comparison.lower(policy.confidence)):
        return _without_bounds(comparison, policy)
    start = f"not surely above {must_exceed:+g}" if must_exceed else "not surely above 0"
    if worse_below <= comparison.gain <= must_exceed:
        return f"{start}; with this gain, more test examples would not change that"
    better = comparison.gain > must_exceed
    more = statistics.examples_to_decide(
        comparison, check.examples or 0, must_exceed if better else worse_below, policy.confidence
    )
    if more is None:
        return start
    conclusion = "decide" if better else "show that it is worse"
    return f"{start}; about {more:,} more test examples would {conclusion}, if the gain stays the same"


def _without_bounds(comparison: statistics.ResampledComparison, policy: Gate) -> str:
    minimum = statistics.min_groups(policy.confidence)
    if comparison.groups < minimum:
        return f"the test examples are of {comparison.groups} group(s), and at least {minimum} are needed for a bound"
    return (
        f"{len(comparison.resampled):,} resamples of {comparison.groups} groups are too few for a bound at"
        f" {percent(policy)}; add test examples of more groups, or raise gate.resamples"
    )


# 2. Floors; for a first model a trivial baseline too


def _floors(candidate: Scores, policy: Gate, metrics: Sequence[Metric]) -> tuple[Check, ...]:
    checks = []
    for name, floor in policy.floors.items():
        value = candidate.metrics[name]
        falling = lower_is_better(name, metrics)
        reached = value <= floor if falling else value >= floor
        required = f"{'at most' if falling else 'at least'} {number(floor)} is required"
        status: Status = "pass" if reached else "fail"
        checks.append(Check("floor", name, status, f"{name} {number(value)}; {required}", candidate=value, limit=floor))
    return tuple(checks)


def lower_is_better(name: str, metrics: Sequence[Metric]) -> bool:
    """By the kind's metrics, else by the name: losses, errors, rates and what a program costs."""
    known = {metric.name: not metric.higher_is_better for metric in metrics}
    return known.get(name, name.endswith(("loss", "error", "rate", *UNITS)))


def against_trivial(candidate: Scores, metric: Metric, policy: Gate) -> Check:
    """Against always answering the most frequent label of the test set, or against the kind's own trivial column."""
    table = candidate.table.sort_values("id").reset_index(drop=True)
    column = f"{TRIVIAL}{metric.numerator}"
    if column in table:
        trivial, baseline = table[column], "a model that learnt nothing"
    elif metric.binary and "label" in table:
        counts = table["label"].value_counts()
        majority = min(counts[counts == counts.max()].index)
        trivial, baseline = (table["label"] == majority).astype(int), f"always answering {majority}"
    else:
        return Check("baseline", metric.name, "info", f"{metric.name} has no trivial baseline to beat")
    pairs = PairedScores(metric, policy, table, table.assign(**{metric.numerator: trivial}))
    check = _primary(pairs, "baseline")
    return replace(check, message=f"against {baseline}: {check.message}")


# 4. Classes and slices


def _slices(pairs: PairedScores, labels: list[str]) -> tuple[Check, ...]:
    """Every class and slice; those with enough examples are tested for being worse beyond tolerance, Holm-adjusted."""
    policy = pairs.policy
    checks = []
    for about, name, part, examples in _slice_pairs(pairs, labels):
        if examples.empty:
            checks.append(Check(about, name, "info", f"{about} {name}: no test examples", 0))
            continue
        check, comparison = part.check(about, name)
        groups = len(np.unique(group_codes(examples)))
        is_judged = len(examples) >= policy.slice_min and groups >= statistics.min_groups(policy.confidence)
        p = comparison.p_below(-policy.slice_tolerance) if is_judged else None
        shown = replace(check, examples=len(examples), p=p, limit=-policy.slice_tolerance)
        checks.append(replace(shown, status="pass" if is_judged else "info"))
    return tuple(_adjusted(checks, pairs))


def _slice_pairs(pairs: PairedScores, labels: list[str]) -> Iterator[tuple[str, str, PairedScores, pd.DataFrame]]:
    """Class or slice, its name, the pairs on it, and its examples.

    A class inside examples has a metric of its own over all of them: where it is not, it can be predicted wrongly.
    """
    for label in labels:
        part = pairs.subset(_rows_with_any(pairs.candidate, [label]))
        if pairs.metric.of_classes and "label" not in pairs.candidate:
            yield "class", label, replace(pairs, metric=pairs.metric.of_classes((label,))), part.candidate
        else:
            yield "class", label, part, part.candidate
    for column in pairs.policy.slices:
        for value in sorted(pairs.candidate[column].dropna().unique()):
            part = pairs.subset(pairs.candidate[column] == value)
            yield "slice", f"{column}={value}", part, part.candidate


def _adjusted(checks: list[Check], pairs: PairedScores) -> Iterator[Check]:
    """The same checks with Holm-adjusted p-values and their messages."""
    policy = pairs.policy
    adjusted = iter(statistics.holm([check.p for check in checks if check.p is not None]))
    for check in checks:
        if check.p is None:
            few = f"{check.about} {check.name}: too few test examples to judge ({check.examples})"
            yield replace(check, message=check.message or few)
            continue
        p = next(adjusted)
        worse = p < 1 - policy.confidence
        message = f"{check.about} {check.name}: {change(check, pairs.metric)} {on_examples(check)}"
        shown_p = f"{p:.3f}" if p >= 0.001 else "< 0.001"
        if worse:
            message += f": worse by more than the {policy.slice_tolerance:g} tolerated (adjusted p {shown_p})"
        yield replace(check, status="fail" if worse else "pass", p=p, message=message)


def _slice_summary(checks: Sequence[Check]) -> Iterator[str]:
    """One sentence for all classes and slices that are fine, one for those that could not be judged."""
    parts = [check for check in checks if check.about in {"class", "slice"}]
    passed = [check for check in parts if check.status == "pass"]
    too_few = [check for check in parts if check.status == "info"]
    if passed:
        yield f"{len(passed)} of {len(parts)} classes and slices were compared and are not shown to be worse"
    if too_few:
        names = ", ".join(f"{check.name} ({check.examples})" for check in too_few[:8]) + (
            ", …" if len(too_few) > 8 else ""
        )
        yield f"{len(too_few)} have too few test examples to be judged: {names}"


# 5. Budgets


def _budgets(candidate: Scores, champion: Scores | None, policy: Gate) -> tuple[Check, ...]:
    budgets, checks = policy.budgets, []
    for name, unit in UNITS.items():
        value = candidate.budget.get(name)
        limit: float | None = getattr(budgets, name)
        if value is None:
            continue
        measured = f"{name.rsplit('_', 1)[0]} {value:.3g} {unit}"
        if limit is not None:
            message = f"{measured}; at most {limit:g} {unit} is allowed"
            checks.append(_budget(name, value, limit, message))
        champion_value = champion.budget.get(name) if champion else None
        if champion_value and budgets.times_champion:
            message = (
                f"{measured}, the champion's {champion_value:.3g} {unit};"
                f" at most {budgets.times_champion:g} times is allowed"
            )
            checks.append(
                replace(_budget(name, value, champion_value * budgets.times_champion, message), champion=champion_value)
            )
    return tuple(checks)


def _budget(name: str, value: float, limit: float, message: str) -> Check:
    return Check("budget", name, "pass" if value <= limit else "fail", message, candidate=value, limit=limit)
