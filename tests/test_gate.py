"""The gate against models whose true difference is known, and against everything that must stop a decision."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from models.common.kind import Metric
from tasks.gating.gate import Scores, Unloadable, Verdict, decide
from tasks.project.policy import Budgets, Gate

METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("word_error_rate", numerator="edits", denominator="words", higher_is_better=False),
)
LABELS = ("ant", "bee", "cat", "dog")
WER = Gate(metric="word_error_rate")


def scores(rng: np.random.Generator, accuracy: float, examples: int = 600, labels: tuple[str, ...] = LABELS) -> Scores:
    """A model that is right with probability `accuracy` on each of the same test examples."""
    table = pd.DataFrame(
        {
            "id": [f"{index:05d}" for index in range(examples)],
            "label": [labels[index % len(labels)] for index in range(examples)],
            "correct": (rng.random(examples) < accuracy).astype(np.int8),
            "group": None,
            "camera": np.where(np.arange(examples) % 3 == 0, "old", "new"),
        }
    )
    return Scores(table, labels, metrics={"accuracy": float(table["correct"].mean())})


def right_on(wrong: int, examples: int = 600, start: int = 0) -> Scores:
    """A model that is wrong on `wrong` test examples from `start` on, and right on the rest."""
    one = scores(np.random.default_rng(0), 1.0, examples)
    one.table.loc[start : start + wrong - 1, "correct"] = 0
    return replace(one, metrics={"accuracy": 1 - wrong / examples})


def transcripts(rng: np.random.Generator, rate: float, examples: int = 200) -> Scores:
    speakers = np.arange(examples) % 25
    words = 3 + np.arange(examples) % 9
    edits = rng.binomial(words, np.clip(rate * (0.5 + speakers / 24), 0, 1))
    table = pd.DataFrame({"id": [f"{index:05d}" for index in range(examples)], "edits": edits, "words": words})
    return Scores(table.assign(group=[f"speaker{number}" for number in speakers]))


def judge(candidate: Scores, champion: object, policy: Gate | None = None) -> Verdict:
    return decide(candidate, champion, policy or Gate(), METRICS)  # type: ignore[arg-type]


def texts(verdict: Verdict) -> str:
    return "\n".join(verdict.reasons)


# How often it errs


def test_of_400_candidates_no_better_than_the_champion_about_one_in_twenty_is_promoted() -> None:
    rng = np.random.default_rng(2026)
    outcomes = [judge(scores(rng, 0.9, 500), scores(rng, 0.9, 500)).outcome for _ in range(400)]
    promoted = outcomes.count("PROMOTE")
    assert promoted <= stats.binom(400, 0.05).ppf(0.999)
    assert promoted >= stats.binom(400, 0.05).ppf(0.001)  # a gate that lets nothing through proves nothing
    assert outcomes.count("REJECT") <= stats.binom(400, 0.10).ppf(0.999)  # primary and slices, 5 % each at most
    assert outcomes.count("ERROR") == 0


def test_of_200_transcribers_no_better_than_the_champion_about_one_in_twenty_is_promoted() -> None:
    rng = np.random.default_rng(2027)
    policy = Gate(metric="word_error_rate", resamples=1000)
    outcomes = [judge(transcripts(rng, 0.2), transcripts(rng, 0.2), policy).outcome for _ in range(200)]
    assert stats.binom(200, 0.05).ppf(0.001) <= outcomes.count("PROMOTE") <= stats.binom(200, 0.05).ppf(0.999)


def test_a_candidate_known_to_be_better_is_promoted() -> None:
    rng = np.random.default_rng(1)
    outcomes = [judge(scores(rng, 0.97), scores(rng, 0.85)).outcome for _ in range(20)]
    assert outcomes == ["PROMOTE"] * 20


def test_a_candidate_known_to_be_worse_is_rejected_and_never_promoted() -> None:
    rng = np.random.default_rng(2)
    outcomes = [judge(scores(rng, 0.85), scores(rng, 0.97)).outcome for _ in range(20)]
    assert outcomes == ["REJECT"] * 20


def test_a_lower_word_error_rate_is_better() -> None:
    rng = np.random.default_rng(3)
    good, bad = transcripts(rng, 0.1), transcripts(rng, 0.3)
    verdict = judge(good, bad, WER)
    assert verdict.outcome == "PROMOTE"
    assert "less is better" in texts(verdict)
    assert "bootstrap over 25 groups" in str(verdict.primary and verdict.primary.method)
    assert judge(bad, good, WER).outcome == "REJECT"


# Messages


def test_the_reason_is_a_sentence_with_the_numbers() -> None:
    verdict = judge(right_on(wrong=20), right_on(wrong=60))
    assert verdict.outcome == "PROMOTE"
    assert verdict.reasons[0].startswith("accuracy 0.900 → 0.967: gain +0.067 (95 % lower bound +0.05")
    assert "on 600 test examples" in verdict.reasons[0]


def test_hold_says_about_how_many_more_test_examples_would_decide() -> None:
    verdict = judge(right_on(wrong=50, start=300), right_on(wrong=58))
    assert verdict.outcome == "HOLD"
    assert "more test examples would decide" in texts(verdict)


def test_a_tie_is_never_promoted() -> None:
    for wrong in (0, 10, 300):
        assert judge(right_on(wrong), right_on(wrong)).outcome == "HOLD"
        assert judge(right_on(wrong), right_on(wrong, start=300)).outcome == "HOLD"


def test_a_gain_that_is_sure_but_under_min_gain_is_held() -> None:
    verdict = judge(right_on(wrong=40), right_on(wrong=50), Gate(min_gain=0.05))
    assert verdict.outcome == "HOLD"
    assert "more test examples would not change that" in texts(verdict)


def test_under_non_inferior_a_smaller_loss_than_the_margin_is_promoted() -> None:
    policy = Gate(rule="non_inferior", margin=0.02)
    assert judge(right_on(wrong=31), right_on(wrong=30), policy).outcome == "PROMOTE"
    assert judge(right_on(wrong=45), right_on(wrong=30), policy).outcome == "HOLD"
    assert judge(right_on(wrong=90), right_on(wrong=30), policy).outcome == "REJECT"


def test_exchanging_candidate_and_champion_mirrors_the_interval() -> None:
    rng = np.random.default_rng(4)
    for one, two, policy in (
        (scores(rng, 0.90), scores(rng, 0.93), Gate()),
        (transcripts(rng, 0.2), transcripts(rng, 0.25), WER),
    ):
        there, back = judge(one, two, policy).primary, judge(two, one, policy).primary
        assert there is not None
        assert back is not None
        assert (there.candidate, there.champion) == (back.champion, back.candidate)
        assert (there.gain, there.lower, there.upper) == pytest.approx((-back.gain, -back.upper, -back.lower))  # type: ignore[operator]


def test_the_same_inputs_give_the_same_verdict_in_whatever_order_they_come() -> None:
    rng = np.random.default_rng(5)
    one, two = transcripts(rng, 0.2), transcripts(rng, 0.22)
    shuffled = replace(one, table=one.table.sample(frac=1, random_state=1))
    assert judge(one, two, WER) == judge(one, two, WER) == judge(shuffled, two, WER)


def test_a_verdict_survives_being_written_and_read() -> None:
    verdict = judge(right_on(wrong=20), right_on(wrong=60), Gate(slices=("camera",)))
    written = json.loads(json.dumps({**verdict.to_json(), "model": "digits"}, allow_nan=False))
    assert Verdict.from_json(written) == verdict


def test_examples_of_one_group_count_together_for_accuracy_too() -> None:
    candidate, champion = right_on(wrong=20), right_on(wrong=60)
    for one in (candidate, champion):
        one.table["group"] = [f"patient{index // 100}" for index in range(600)]  # 6 patients: all gain is on one
    verdict = judge(candidate, champion)
    assert verdict.outcome == "HOLD"
    assert "bootstrap over 6 groups" in str(verdict.primary and verdict.primary.method)


def test_too_few_groups_decide_nothing() -> None:
    candidate, champion = right_on(wrong=0), right_on(wrong=300)
    for one in (candidate, champion):
        one.table["group"] = ["left" if index % 2 else "right" for index in range(600)]
    verdict = judge(candidate, champion)
    assert verdict.outcome == "HOLD"
    assert "the test examples are of 2 group(s), and at least 5 are needed" in texts(verdict)
    assert "inf" not in texts(verdict)
    assert json.dumps(verdict.to_json(), allow_nan=False)


def test_what_a_first_model_is_held_for_comes_first() -> None:
    verdict = judge(right_on(wrong=450), None)
    assert verdict.outcome in {"HOLD", "REJECT"}
    assert verdict.reasons[0].startswith("against always answering")
    assert "first model: there is no champion to compare with" in verdict.reasons


# What must be an error


@pytest.mark.parametrize("side", ["candidate", "champion"])
def test_a_score_that_is_not_a_number_is_an_error(side: str) -> None:
    good, bad = right_on(wrong=20), right_on(wrong=20)
    bad.table["correct"] = bad.table["correct"].astype(float)
    bad.table.loc[3, "correct"] = np.nan
    verdict = judge(bad, good) if side == "candidate" else judge(good, bad)
    assert verdict.outcome == "ERROR"
    assert f"of the {side} is not a finite number on 1 of 600" in texts(verdict)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_summary_or_budget_that_is_not_finite_is_an_error(value: float) -> None:
    champion = right_on(wrong=20)
    assert judge(replace(right_on(wrong=5), metrics={"log_loss": value}), champion).outcome == "ERROR"
    assert judge(replace(right_on(wrong=5), budget={"latency_ms": value}), champion).outcome == "ERROR"


@pytest.mark.parametrize("side", ["candidate", "champion"])
def test_a_test_example_in_either_models_training_data_is_an_error_that_says_how_many(side: str) -> None:
    leaky = replace(right_on(wrong=5), trained_ids=frozenset({"00001", "00007", "something else"}))
    verdict = judge(leaky, right_on(wrong=60)) if side == "candidate" else judge(right_on(wrong=5), leaky)
    assert verdict.outcome == "ERROR"
    assert f"2 of 600 test examples are in the {side}'s training data" in texts(verdict)


def test_a_group_on_both_sides_is_a_leak_too() -> None:
    candidate = transcripts(np.random.default_rng(6), 0.1)
    leaky = replace(candidate, trained_groups=frozenset({"speaker3"}))
    assert judge(leaky, None, WER).outcome == "ERROR"
    assert "8 of 200" in texts(judge(leaky, None, WER))


def test_different_exams_cannot_be_compared() -> None:
    verdict = judge(right_on(wrong=5), right_on(wrong=5, examples=590))
    assert verdict.outcome == "ERROR"
    assert "10 test examples are not in both" in texts(verdict)


def test_a_policy_that_names_what_is_not_measured_is_an_error() -> None:
    one = right_on(wrong=5)
    assert "there are: accuracy, word_error_rate" in texts(judge(one, one, Gate(metric="f2")))
    assert "floors name 'recall'" in texts(judge(one, one, Gate(floors={"recall": 0.5})))
    assert "slices name 'weather'" in texts(judge(one, one, Gate(slices=("weather",))))


def test_no_test_examples_or_repeated_ones_are_an_error() -> None:
    one = right_on(wrong=5)
    assert judge(replace(one, table=one.table.iloc[:0]), one).outcome == "ERROR"
    assert judge(replace(one, table=one.table.drop(columns="correct")), one).outcome == "ERROR"
    twice = replace(one, table=pd.concat([one.table, one.table.iloc[:3]]))
    assert "3 test examples of the candidate appear more than once" in texts(judge(twice, one))


# First model, floors, an unloadable champion


def test_a_first_model_that_beats_the_majority_class_is_promoted_and_marked_as_first() -> None:
    verdict = judge(right_on(wrong=100), None, Gate(floors={"accuracy": 0.8}))
    assert (verdict.outcome, verdict.first) == ("PROMOTE", True)
    assert "first model" in verdict.reasons[0]
    assert "always answering ant" in texts(verdict)


def test_a_first_model_no_better_than_the_majority_class_is_not_promoted() -> None:
    rng = np.random.default_rng(7)
    one = scores(rng, 0.9)
    one.table["label"] = np.where(np.arange(600) < 540, "ant", "bee")  # always answering ant is right on 90 %
    assert judge(replace(one, labels=("ant", "bee")), None).outcome == "HOLD"
    assert judge(replace(scores(rng, 0.1), labels=LABELS), None).outcome == "REJECT"


def test_a_kind_may_bring_its_own_trivial_baseline() -> None:
    one = transcripts(np.random.default_rng(8), 0.3)
    silent = replace(one, table=one.table.assign(trivial_edits=one.table["words"]))
    assert "a model that learnt nothing: word_error_rate 1.000" in texts(judge(silent, None, WER))
    assert "no trivial baseline" in texts(judge(one, None, WER))


def test_a_missed_floor_rejects_even_what_beats_the_champion() -> None:
    verdict = judge(right_on(wrong=20), right_on(wrong=60), Gate(floors={"accuracy": 0.99}))
    assert verdict.outcome == "REJECT"
    assert verdict.reasons[0] == "accuracy 0.967; at least 0.990 is required"


def test_a_floor_on_a_loss_must_be_stayed_under() -> None:
    one = replace(right_on(wrong=20), metrics={"accuracy": 0.9, "log_loss": 0.4})
    assert judge(one, right_on(wrong=60), Gate(floors={"log_loss": 0.5})).outcome == "PROMOTE"
    assert judge(one, right_on(wrong=60), Gate(floors={"log_loss": 0.3})).outcome == "REJECT"


def test_an_unloadable_champion_holds_whatever_the_candidate_scores() -> None:
    verdict = judge(right_on(wrong=0), Unloadable("program.onnx is damaged"))
    assert verdict.outcome == "HOLD"
    assert "program.onnx is damaged" in texts(verdict)


# A changed label set


def test_a_new_class_is_floored_and_the_rest_compared_on_the_shared_labels() -> None:
    candidate, champion = right_on(wrong=20), replace(right_on(wrong=0), labels=("ant", "bee", "cat"))
    champion.table.loc[champion.table["label"] == "dog", "correct"] = 0
    champion.table.loc[100:180, "correct"] = 0
    verdict = judge(candidate, champion)
    assert verdict.outcome == "PROMOTE"
    assert verdict.primary is not None
    assert verdict.primary.examples == 450  # without the dogs, on which the champion could not but be wrong
    assert "the labels changed (new: dog)" in texts(verdict)
    assert any(check.about == "new class" and check.status == "pass" for check in verdict.checks)


def test_a_new_class_that_is_not_recognised_better_than_by_chance_rejects() -> None:
    candidate, champion = right_on(wrong=20), replace(right_on(wrong=120), labels=("ant", "bee", "cat"))
    dogs = candidate.table.index[candidate.table["label"] == "dog"]
    candidate.table.loc[dogs[:120], "correct"] = 0
    verdict = judge(candidate, champion)
    assert verdict.outcome == "REJECT"
    assert "new class dog: accuracy 0.2" in verdict.reasons[0]
    assert "chance is 0.250" in verdict.reasons[0]


def test_a_new_class_with_hardly_any_test_examples_is_reported_and_does_not_decide() -> None:
    labels = (*LABELS, "eel")
    candidate, champion = replace(right_on(wrong=20), labels=labels), right_on(wrong=60)
    verdict = judge(candidate, champion)
    assert verdict.outcome == "PROMOTE"
    assert "new class eel: not judged (0 test examples)" in texts(verdict)


def test_labels_that_have_nothing_in_common_hold() -> None:
    verdict = judge(right_on(wrong=5), replace(right_on(wrong=5), labels=("yes", "no")))
    assert verdict.outcome == "HOLD"
    assert "no test example has a label that both models know" in texts(verdict)


# Classes and slices


def worse_on(label: str, count: int) -> Scores:
    """Better overall than a champion with 80 errors elsewhere, but wrong on `count` examples of one class."""
    one = right_on(wrong=0)
    rows = one.table.index[one.table["label"] == label]
    one.table.loc[rows[-count:], "correct"] = 0
    return one


def test_a_class_that_got_worse_beyond_tolerance_rejects_though_the_whole_got_better() -> None:
    verdict = judge(worse_on("dog", 60), right_on(wrong=100))
    assert verdict.primary is not None
    assert verdict.primary.status == "pass"
    assert verdict.outcome == "REJECT"
    assert verdict.reasons[0].startswith("class dog: accuracy")
    assert "worse by more than the 0.02 tolerated" in verdict.reasons[0]


def test_a_slice_that_got_worse_beyond_tolerance_rejects() -> None:
    candidate, champion = right_on(wrong=0), right_on(wrong=0)
    old = candidate.table.index[candidate.table["camera"] == "old"]
    new = candidate.table.index[candidate.table["camera"] == "new"]
    candidate.table.loc[old[:30], "correct"] = 0
    champion.table.loc[new[:90], "correct"] = 0
    assert judge(candidate, champion).outcome == "PROMOTE"
    verdict = judge(candidate, champion, Gate(slices=("camera",)))
    assert verdict.outcome == "REJECT"
    assert verdict.reasons[0].startswith("slice camera=old: accuracy")


def test_an_underpowered_slice_is_reported_and_never_rejects() -> None:
    candidate, champion = right_on(wrong=0), right_on(wrong=60)
    for one in (candidate, champion):
        one.table["camera"] = np.where(np.arange(600) >= 580, "rare", "usual")
    candidate.table.loc[580:, "correct"] = 0  # wrong on all 20 of them
    verdict = judge(candidate, champion, Gate(slices=("camera",)))
    assert verdict.outcome == "PROMOTE"
    assert "1 have too few test examples to be judged: camera=rare (20)" in texts(verdict)


def test_an_empty_class_is_reported_and_decides_nothing() -> None:
    labels = (*LABELS, "eel")
    candidate, champion = replace(right_on(wrong=20), labels=labels), replace(right_on(wrong=60), labels=labels)
    verdict = judge(candidate, champion)
    assert verdict.outcome == "PROMOTE"
    assert any(check.message == "class eel: no test examples" for check in verdict.checks)


def test_a_hundred_harmless_slices_do_not_reject_by_chance() -> None:
    rng = np.random.default_rng(9)
    labels = tuple(f"class{index:03d}" for index in range(100))
    rejected = 0
    for _ in range(10):
        candidate, champion = scores(rng, 0.9, 4000, labels), scores(rng, 0.9, 4000, labels)
        checks = judge(candidate, champion).checks
        rejected += any(check.about == "class" and check.status == "fail" for check in checks)
    assert rejected <= 2


# Budgets


def test_a_budget_is_kept_absolutely_and_against_the_champion() -> None:
    quick, slow = {"latency_ms": 1.0, "size_mb": 2.0}, {"latency_ms": 2.5, "size_mb": 2.0}
    candidate, champion = replace(right_on(wrong=5), budget=slow), replace(right_on(wrong=60), budget=quick)
    verdict = judge(candidate, champion)
    assert verdict.outcome == "REJECT"
    assert verdict.reasons[0] == "latency 2.5 ms, the champion's 1 ms; at most 2 times is allowed"
    assert judge(candidate, champion, Gate(budgets=Budgets(times_champion=None))).outcome == "PROMOTE"
    absolute = Gate(budgets=Budgets(latency_ms=2, times_champion=None))
    assert judge(candidate, champion, absolute).outcome == "REJECT"
    assert judge(candidate, None, absolute).outcome == "REJECT"


def test_a_verdict_that_was_written_before_its_words_changed_is_still_read() -> None:
    check = {"about": "labels", "name": "shared", "status": "told", "says": "the labels changed", "examples": 3}
    verdict = Verdict.from_json({"outcome": "HOLD", "reasons": ["the labels changed"], "checks": [check]})
    assert (verdict.checks[0].status, verdict.checks[0].message) == ("info", "the labels changed")
