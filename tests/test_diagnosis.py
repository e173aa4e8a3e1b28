"""What a training looks like, from numbers as trainings leave them: each case, what it is told from, and what it must
not change. The numbers of the wrong labels and of the training that was too short are those of real runs on digits."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from models.common.kind import Estimate, Metric
from tasks.gating.diagnosis import Training, diagnose, explain
from tasks.gating.gate import Scores, Unloadable, decide
from tasks.gating.verdict import Verdict
from tasks.project.policy import Budgets, Gate

LABELS = ("ant", "bee", "cat", "dog")
NEW = ("tuesday",)


def _mean(table: pd.DataFrame) -> Estimate:
    values = table["correct"].to_numpy(float)
    return lambda weights: weights @ values / weights.sum(axis=1)


METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("word_error_rate", numerator="edits", denominator="words", higher_is_better=False),
    Metric("mean_iou", estimate=_mean),
)


def table(accuracy: float, examples: int, batch: str = "monday", name: str = "test") -> pd.DataFrame:
    """Examples of which exactly that share was answered rightly, spread evenly over the labels and the table."""
    right = np.diff(np.floor(np.arange(examples + 1) * accuracy + 0.5)).astype(int)
    return pd.DataFrame(
        {
            "id": [f"{name} {batch} {index:05d}" for index in range(examples)],
            "label": [LABELS[index % 4] for index in range(examples)],
            "correct": right,
            "edits": 3 * (1 - right),
            "words": 3,
            "group": None,
            "batch": batch,
        }
    )


def trained_on(*parts: tuple[float, int, str]) -> pd.DataFrame:
    return pd.concat([table(*part, name="train") for part in parts], ignore_index=True)


def scores(*tables: pd.DataFrame) -> Scores:
    whole = pd.concat(tables, ignore_index=True)
    return Scores(whole, LABELS, metrics={"accuracy": float(whole["correct"].mean())})


def history(losses: list[float], rates: list[float] | None = None) -> pd.DataFrame:
    rows = {"epoch": range(1, len(losses) + 1), "train_loss": losses, "learning_rate": rates or [0.001] * len(losses)}
    return pd.DataFrame(rows)


def cosine(epochs: int, ran: int) -> list[float]:
    """The learning rate at the end of the first `ran` of so many epochs."""
    return [0.001 * (1 + np.cos(np.pi * (epoch + 1) / epochs)) / 2 for epoch in range(ran)]


FALLING = history([2.1, 1.2, 0.8, 0.6, 0.5, 0.45], cosine(6, 6))
WELL = Training(trained_on((0.99, 300, "monday")), {"epochs_run": 6, "best_epoch": 6, "stopped_early": False}, FALLING)
TEST = 400


def judge(
    training: Training, candidate: Scores, champion: Scores | Unloadable | None, policy: Gate | None = None
) -> Verdict:
    """The verdict with its diagnosis, which must have left the gate's decision as it was."""
    policy = policy or Gate(resamples=1000)
    decided = decide(candidate, champion, policy, METRICS)
    found = explain(decided, training, candidate, champion, policy, METRICS)
    assert replace(found, diagnosis=None, reasons=found.reasons[: len(decided.reasons)]) == decided
    assert len(found.reasons) <= len(decided.reasons) + 1
    assert explain(decided, training, candidate, champion, policy, METRICS) == found
    return found


def worse(training: Training, accuracy: float = 0.85, **policy: Any) -> Verdict:
    """Surely worse than a champion of 0.95."""
    return judge(training, scores(table(accuracy, TEST)), scores(table(0.95, TEST)), Gate(resamples=1000, **policy))


def looks(verdict: Verdict) -> str:
    assert verdict.diagnosis is not None
    return verdict.diagnosis.looks


def test_a_sound_training_of_a_worse_candidate_adds_no_reason_and_leaves_the_question_of_a_batch() -> None:
    verdict = worse(replace(WELL, table=trained_on((0.95, 300, "monday")), new_batches=NEW))
    assert (verdict.outcome, looks(verdict), verdict.suspects_batch) == ("REJECT", "nothing wrong seen", True)
    assert not any("train" in reason for reason in verdict.reasons)
    assert not worse(replace(WELL, table=trained_on((0.95, 300, "monday")))).suspects_batch  # nothing is new


def test_a_loss_that_ends_above_its_start_is_a_training_that_diverged() -> None:
    summary = {"epochs_run": 5, "best_epoch": 2, "stopped_early": False}
    for losses in ([2.3, 0.9, 1.4, 6.1, 5.8], [2.3, 0.9, 0.7, 0.6, np.inf]):
        verdict = worse(replace(WELL, history=history(losses), summary=summary, new_batches=NEW))
        assert (looks(verdict), verdict.suspects_batch) == ("diverged", False)
        assert "lower train.learning_rate" in verdict.reasons[-1]
        assert "rather than look for a bad batch" in verdict.reasons[-1]
    assert "its loss was 0.9 after epoch 2 and 5.8 after epoch 5, the last (epoch 2 was kept)" in _reason(
        [2.3, 0.9, 5.8]
    )


def _reason(losses: list[float]) -> str:
    losses = [*losses[:2], 1.4, 6.1, losses[2]]
    return worse(replace(WELL, history=history(losses), summary={"best_epoch": 2})).reasons[-1]


@pytest.mark.parametrize(
    "losses",
    [
        [2.3, 2.2, 2.4, 2.31],  # learns nothing, and does not diverge
        [0.021, 0.020, 0.026, 0.024],  # goes on from a champion
        [0.9, 0.6, 1.1, 0.8, 0.5],  # a layer was opened on the way
        [2.0],
    ],
)
def test_a_loss_that_moves_is_none_that_diverged(losses: list[float]) -> None:
    assert looks(worse(replace(WELL, history=history(losses), summary={}))) != "diverged"


def test_an_epoch_that_was_kept_at_a_high_learning_rate_is_a_lucky_one() -> None:
    """2,062 photos of hand signs: 0.960 after 0.985, because patience ended 15 epochs after 9 and kept the 4th."""
    ended = {"epochs_run": 9, "best_epoch": 4, "stopped_early": True}
    losses = [1.9, 1.2, 0.9, 0.7, 0.6, 0.5, 0.45, 0.4, 0.37]
    training = Training(trained_on((0.99, 300, "monday")), ended, history(losses, cosine(15, 9)), NEW)
    verdict = judge(training, scores(table(0.960, 412)), scores(table(0.99, 412)))
    assert (verdict.outcome, looks(verdict), verdict.suspects_batch) == ("REJECT", "stopped early", False)
    assert "of 9 epochs, which early stopping ended, epoch 4 was kept, at 84 % of the" in verdict.reasons[-1]
    assert "or raise train.early_stopping (0: off), rather than look for a bad batch" in verdict.reasons[-1]
    held = judge(training, scores(table(0.985, 412)), scores(table(0.99, 412)))
    assert (held.outcome, looks(held)) == ("HOLD", "stopped early")
    assert "looks unfinished" in held.reasons[-1]
    warming_up = history([2.0, 1.9, 1.5, 1.0], [0.0001, 0.0005, 0.001, 0.0001])  # kept at 10 %, on the way up
    assert looks(worse(replace(WELL, summary={"best_epoch": 1}, history=warming_up))) == "stopped early"


def test_an_epoch_that_was_kept_from_the_last_stretch_is_no_lucky_one() -> None:
    for kept in (10, 14, 15):
        done = {"epochs_run": 15, "best_epoch": kept, "stopped_early": True}
        training = replace(WELL, summary=done, history=history([2.0 / (n + 1) for n in range(15)], cosine(15, 15)))
        assert looks(worse(training)) != "stopped early"


def test_an_epoch_from_which_on_the_rate_was_brought_down_is_no_lucky_one() -> None:
    rates = [0.001] * 8 + [0.00075, 0.0005, 0.00025, 0.0]
    stable = replace(WELL, history=history([2.0 / (n + 1) for n in range(12)], rates))
    for kept, found in ((6, "stopped early"), (9, "nothing wrong seen"), (12, "nothing wrong seen")):
        summary = {"best_epoch": kept, "decay_from_epoch": 9, "stopped_early": True}
        sample = trained_on((0.95, 300, "monday"))
        assert looks(worse(replace(stable, table=sample, summary=summary))) == found


def test_a_training_that_does_not_reach_on_its_examples_what_the_champion_does_on_others_did_not_fit() -> None:
    short = Training(trained_on((0.15, 100, "monday"), (0.15, 47, "tuesday")), {"epochs_run": 1}, new_batches=NEW)
    verdict = judge(short, scores(table(0.095, 147)), scores(table(0.952, 147)))
    assert (verdict.outcome, looks(verdict), verdict.suspects_batch) == ("REJECT", "did not fit", False)
    assert "did not fit its own examples: accuracy 0.150 on 100 of them" in verdict.reasons[-1]
    assert "the champion has 0.952 on test examples (95 % bound: at least 0.7" in verdict.reasons[-1]
    assert "raise train.epochs" in verdict.reasons[-1]
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.train == pytest.approx(0.15, abs=0.01)
    few = replace(WELL, table=trained_on((0.88, 40, "monday")))  # may be luck
    assert looks(worse(few)) == "nothing wrong seen"


def test_training_examples_that_are_harder_than_the_test_are_no_sign_of_a_poor_fit() -> None:
    noisy = replace(WELL, table=trained_on((0.8, 300, "monday")))  # a fifth of all labels to train on is wrong
    assert looks(worse(noisy, 0.9)) == "nothing wrong seen"
    better = judge(
        replace(WELL, table=trained_on((0.88, 300, "monday"))), scores(table(0.955, TEST)), scores(table(0.95, TEST))
    )
    assert (better.outcome, looks(better)) == ("HOLD", "nothing wrong seen")


@pytest.mark.parametrize("metric", ["word_error_rate", "mean_iou"])
def test_any_metric_is_compared_between_train_and_test(metric: str) -> None:
    policy = Gate(metric=metric, resamples=500)
    short = replace(WELL, table=trained_on((0.6, 200, "monday")))
    assert looks(worse(short, 0.55, metric=metric)) == "did not fit"
    by_heart = replace(WELL, table=trained_on((1.0, 200, "monday")))
    assert looks(worse(by_heart, 0.55, metric=metric)) == "overfitted"
    same = scores(table(0.95, TEST))
    assert looks(judge(WELL, same, same, policy)) == "nothing wrong seen"


def test_a_first_model_is_held_against_its_floor_or_against_one_that_learnt_nothing() -> None:
    high = Gate(resamples=1000, floors={"accuracy": 0.9})
    poor, good = (replace(WELL, table=trained_on((share, 200, "monday"))) for share in (0.6, 1.0))
    assert looks(judge(poor, scores(table(0.6, TEST)), None, high)) == "did not fit"
    assert looks(judge(good, scores(table(0.6, TEST)), None, high)) == "overfitted"
    assert looks(judge(good, scores(table(0.95, TEST)), None, high)) == "nothing wrong seen"
    nothing_learnt = replace(WELL, table=trained_on((0.27, 200, "monday")))
    verdict = judge(nothing_learnt, scores(table(0.25, TEST)), None)
    assert looks(verdict) == "did not fit"
    assert "not surely better than always answering ant" in verdict.reasons[-1]
    assert "batch" not in verdict.reasons[-1]
    assert looks(judge(good, scores(table(0.25, TEST)), None)) == "overfitted"


def test_better_than_the_champion_on_train_and_worse_on_test_was_learnt_by_heart() -> None:
    verdict = worse(replace(WELL, table=trained_on((1.0, 300, "monday")), new_batches=NEW))
    assert (looks(verdict), verdict.suspects_batch) == ("overfitted", True)  # wrong labels are learnt by heart, too
    assert (
        "much better on train than on test: accuracy 1.000 on 300 of its training examples, 0.850 on test"
        in (verdict.reasons[-1])
    )
    held = worse(replace(WELL, table=trained_on((1.0, 300, "monday"))), 0.94, slice_tolerance=0.5)
    assert (held.outcome, looks(held)) == ("HOLD", "nothing wrong seen")


def test_a_new_batch_with_40_percent_wrong_labels_is_named_and_the_question_stays() -> None:
    wrong = Training(trained_on((0.985, 67, "monday"), (0.588, 80, "tuesday")), WELL.summary, FALLING, NEW)
    verdict = worse(wrong)
    assert (looks(verdict), verdict.suspects_batch) == ("batch differs", True)
    assert "batch tuesday, new since the champion, stands out: accuracy 0.588 on 80 training" in verdict.reasons[-1]
    assert "0.985 on 67 of other batches" in verdict.reasons[-1]
    ninety = replace(wrong, table=trained_on((0.701, 67, "monday"), (0.075, 80, "tuesday")))
    assert looks(worse(ninety, 0.3)) == "batch differs"  # too many to fit the others, yet not for want of training


def test_wrong_labels_that_were_learnt_by_heart_show_on_the_test_examples_of_their_batch() -> None:
    by_heart = Training(trained_on((1.0, 100, "monday"), (1.0, 200, "tuesday")), WELL.summary, FALLING, NEW)
    candidate = scores(table(0.93, 200), table(0.6, 100, "tuesday"))
    verdict = judge(by_heart, candidate, scores(table(0.98, 200), table(0.7, 100, "tuesday")))
    assert (verdict.outcome, looks(verdict), verdict.suspects_batch) == ("REJECT", "batch differs", True)
    assert "0.600 on 100 test examples of it" in verdict.reasons[-1]


def test_a_clean_batch_that_is_a_little_harder_is_not_named() -> None:
    clean = Training(trained_on((1.0, 67, "monday"), (0.95, 80, "tuesday")), WELL.summary, FALLING, NEW)
    assert looks(worse(clean)) != "batch differs"


def test_of_150_sound_trainings_hardly_one_in_twenty_looks_wrong() -> None:
    rng = np.random.default_rng(2028)
    policy, verdict, seen = Gate(resamples=300), Verdict("HOLD", ()), 0
    for _ in range(150):
        sample, candidate, champion = (
            pd.concat([table(1.0, 150, batch, name) for batch in ("monday", "tuesday")], ignore_index=True)
            for name in ("train", "test", "test")
        )
        for part, accuracy in ((sample, 0.95), (candidate, 0.9), (champion, 0.9)):
            part["correct"] = (rng.random(300) < accuracy).astype(int)
        training = replace(WELL, table=sample, new_batches=NEW)
        seen += diagnose(verdict, training, candidate, champion, policy, METRICS[0]).looks != "nothing wrong seen"
    assert seen <= stats.binom(150, 0.05).ppf(0.999)


def test_what_a_program_costs_is_not_explained_by_its_training() -> None:
    policy = Gate(resamples=500, budgets=Budgets(size_mb=1), rule="non_inferior", margin=0.5, slice_tolerance=0.5)
    slow = replace(scores(table(0.85, TEST)), budget={"size_mb": 2.0})
    verdict = judge(replace(WELL, table=trained_on((0.85, 200, "monday"))), slow, scores(table(0.95, TEST)), policy)
    assert (verdict.outcome, looks(verdict)) == ("REJECT", "did not fit")
    assert not any("did not fit" in reason for reason in verdict.reasons)


def test_what_cannot_be_known_is_not_said() -> None:
    unknown = worse(Training(new_batches=NEW))
    assert (looks(unknown), unknown.suspects_batch) == ("not known", True)
    assert judge(WELL, scores(table(0.9, TEST)), Unloadable("damaged")).outcome == "HOLD"
    broken = scores(table(0.9, TEST).assign(correct=np.nan))
    assert judge(WELL, broken, None).diagnosis is None


def test_a_verdict_with_its_diagnosis_comes_back_from_json() -> None:
    verdict = worse(replace(WELL, new_batches=NEW))
    written = json.loads(json.dumps(verdict.to_json()))
    assert Verdict.from_json(written) == verdict
    assert written["diagnosis"]["looks"] == "overfitted"
    assert Verdict.from_json({**written, "diagnosis": None}).diagnosis is None
    del written["diagnosis"]  # of an older Ratchet
    assert Verdict.from_json(written).diagnosis is None
