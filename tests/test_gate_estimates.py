"""The gate on metrics that are no ratio of sums, such as mean IoU, and on truths that are no label."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from models.common.kind import Metric
from tasks.gating import statistics
from tasks.gating.gate import Scores, Verdict, decide
from tasks.project.policy import Gate

LABELS = ("road", "sky", "tree")
Weights = NDArray[np.float64]


def mean_iou(labels: tuple[str, ...] | None) -> Callable[[pd.DataFrame], Callable[[Weights], Weights]]:
    """Mean over classes of intersections over unions, as a kind of masks would define it."""

    def of(table: pd.DataFrame) -> Callable[[Weights], Weights]:
        known = [str(name).removeprefix("union:") for name in table if str(name).startswith("union:")]
        named = known if labels is None else labels
        inside = table[[f"intersection:{label}" for label in named]].to_numpy(float)
        union = table[[f"union:{label}" for label in named]].to_numpy(float)
        return lambda weights: np.mean((weights @ inside) / (weights @ union), axis=1)

    return of


def metric(labels: tuple[str, ...] | None = None) -> Metric:
    return Metric("mean_iou", estimate=mean_iou(labels), of_classes=metric)


METRICS = (metric(), Metric("pixel_accuracy", numerator="right", denominator="pixels"))
POLICY = Gate(metric="mean_iou", resamples=500)


def masks(
    seed: int, quality: float = 0.7, examples: int = 120, bad: str = "", labels: tuple[str, ...] = LABELS
) -> Scores:
    """A model whose masks overlap the truth by about `quality`, by 0.2 less on the class `bad`."""
    rng = np.random.default_rng(seed)
    union = np.random.default_rng(99_999).integers(200, 900, (examples, len(labels)))  # the exam is the same for all
    share = np.clip(rng.normal(quality, 0.1, union.shape) - 0.2 * (np.array(labels) == bad), 0, 1)
    table = pd.DataFrame({"id": [f"{index:04d}" for index in range(examples)]})
    for column, label in enumerate(labels):
        table[f"union:{label}"] = union[:, column]
        table[f"intersection:{label}"] = np.round(union[:, column] * share[:, column])
    table["classes"] = [[label for label in labels if label != "tree" or index % 2] for index in range(examples)]
    return Scores(table, labels, metrics={"mean_iou": float(share.mean())})


def judge(candidate: Scores, champion: Scores | None, policy: Gate = POLICY) -> Verdict:
    return decide(candidate, champion, policy, METRICS)


def test_better_is_promoted_worse_rejected_the_same_held() -> None:
    champion = masks(0)
    assert judge(masks(1, 0.75), champion).outcome == "PROMOTE"
    assert judge(masks(1, 0.65), champion).outcome == "REJECT"
    assert judge(champion, champion).outcome == "HOLD"


def test_of_200_segmenters_no_better_than_the_champion_about_one_in_twenty_is_promoted() -> None:
    policy = POLICY.model_copy(update={"resamples": 200})
    outcomes = [judge(masks(2 * seed), masks(2 * seed + 1), policy).outcome for seed in range(200)]
    assert stats.binom(200, 0.05).ppf(0.001) <= outcomes.count("PROMOTE") <= stats.binom(200, 0.05).ppf(0.999)


def test_an_estimate_that_is_a_ratio_has_the_bounds_of_that_ratio() -> None:
    rng = np.random.default_rng(3)
    candidate, champion, words = rng.poisson(2, 300), rng.poisson(2.3, 300), rng.integers(5, 15, 300)
    groups = np.arange(300) // 3
    ratio = statistics.compare((candidate, words), (champion, words), groups, higher_is_better=False)
    estimate = statistics.compare_estimates(
        lambda weights: (weights @ candidate) / (weights @ words),
        lambda weights: (weights @ champion) / (weights @ words),
        groups,
        higher_is_better=False,
    )
    assert estimate.gain == pytest.approx(ratio.gain, abs=1e-12)
    assert estimate.lower(0.95) == pytest.approx(ratio.lower(0.95), abs=0.15 * ratio.standard_error)
    assert estimate.upper(0.95) == pytest.approx(ratio.upper(0.95), abs=0.15 * ratio.standard_error)
    assert estimate.groups == 100


def test_the_same_inputs_give_the_same_verdict() -> None:
    first, again = judge(masks(5, 0.71), masks(6)), judge(masks(5, 0.71), masks(6))
    assert first.to_json() == again.to_json()


def test_a_class_inside_examples_that_got_worse_is_found_by_its_own_metric() -> None:
    verdict = judge(masks(1, 0.85, bad="tree"), masks(0, 0.7))
    assert verdict.outcome == "REJECT"
    tree = next(check for check in verdict.checks if check.about == "class" and check.name == "tree")
    assert tree.status == "fail"
    assert tree.examples == 60  # those that have a tree in them
    assert tree.candidate == pytest.approx(0.65, abs=0.03)  # not 0.85
    assert next(check for check in verdict.checks if check.name == "sky").status == "pass"


def test_a_new_class_is_left_out_of_the_comparison_and_reported() -> None:
    champion = masks(0, labels=("road", "sky"))
    candidate = masks(1, 0.8, bad="tree")
    champion.table["classes"] = candidate.table["classes"]
    verdict = judge(candidate, champion)
    assert verdict.outcome == "PROMOTE"
    assert verdict.primary is not None
    assert verdict.primary.candidate == pytest.approx(0.8, abs=0.02)  # without the bad new class
    assert "the labels changed (new: tree)" in "\n".join(verdict.reasons)
    assert "new class tree: not judged (mean_iou has no chance level)" in "\n".join(verdict.reasons)


def test_a_value_that_is_no_number_is_an_error() -> None:
    broken = masks(1)
    for label in LABELS:
        broken.table[f"union:{label}"] = 0
        broken.table[f"intersection:{label}"] = 0
    with np.errstate(invalid="ignore"):
        verdict = judge(broken, masks(0))
    assert verdict.outcome == "ERROR"
    assert verdict.reasons[0] == "mean_iou of the candidate is nan, not a finite number"


def test_a_first_model_is_promoted_by_its_floors_alone() -> None:
    policy = POLICY.model_copy(update={"floors": {"mean_iou": 0.6}})
    assert judge(masks(0), None, policy).outcome == "PROMOTE"
    assert judge(masks(0, 0.5), None, policy).outcome == "REJECT"


def test_free_text_has_no_classes_and_another_alphabet_is_no_obstacle() -> None:
    words = pd.DataFrame({"id": [f"{index}" for index in range(200)], "edits": 1, "words": 10})
    ratio = (Metric("word_error_rate", numerator="edits", denominator="words", higher_is_better=False),)
    candidate = words.assign(edits=np.arange(200) % 2)
    verdict = decide(
        Scores(candidate, labels=tuple("abc")), Scores(words, labels=tuple("ab")), Gate(metric="word_error_rate"), ratio
    )
    assert verdict.outcome == "PROMOTE"
    assert not [check for check in verdict.checks if check.about in {"class", "labels", "new class"}]
