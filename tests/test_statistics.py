"""The gate's statistics against exact references, published numbers and simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from tasks.gating.statistics import (
    BinaryComparison,
    Comparison,
    ResampledComparison,
    compare,
    examples_to_decide,
    holm,
    mcnemar_mid_p,
    min_groups,
    paired_p,
    tango_z,
    wilson,
)


def resampled(candidate: np.ndarray, champion: np.ndarray, groups: np.ndarray) -> ResampledComparison:
    ones = np.ones(len(groups))
    comparison = compare((candidate, ones), (champion, ones), groups)
    assert isinstance(comparison, ResampledComparison)
    return comparison


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (7, 2), (2, 7), (12, 12), (24, 0)])
def test_mid_p_counts_half_of_what_was_seen(wins: int, losses: int) -> None:
    draws = stats.binom(wins + losses, 0.5)
    assert mcnemar_mid_p(wins, losses) == pytest.approx(draws.sf(wins) + draws.pmf(wins) / 2)


def test_at_zero_the_score_statistic_is_mcnemars() -> None:
    assert tango_z(45, 20, 1000, 0.0) == pytest.approx((45 - 20) / math.sqrt(45 + 20))
    assert paired_p(45, 20, 1000) == pytest.approx(stats.norm.sf(25 / math.sqrt(65)))


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975, 0.99])
def test_under_25_differing_examples_the_exact_mid_p_decides(confidence: float) -> None:
    for differing in range(1, 25):
        for wins in range(differing + 1):
            better = mcnemar_mid_p(wins, differing - wins) < 1 - confidence
            assert (BinaryComparison(wins, differing - wins, 300).lower(confidence) > 0) == better


def test_tangos_interval_is_the_published_one() -> None:
    # Tango 1998, table: 44 pairs, one of which differs; 95 % two-sided
    pair = BinaryComparison(0, 1, 44)
    assert pair.lower(0.975) == pytest.approx(-0.1181, abs=5e-4)
    assert pair.upper(0.975) == pytest.approx(0.0594, abs=5e-4)


@pytest.mark.parametrize("threshold", [-0.1, -0.02, 0.03, 0.2])
def test_the_score_statistic_uses_the_most_likely_shares_given_the_threshold(threshold: float) -> None:
    wins, losses, examples = 40, 25, 400

    def unlikelihood(loss_share: float) -> float:
        win_share = loss_share + threshold
        rest = 1 - loss_share - win_share
        unequal = wins * math.log(win_share) + losses * math.log(loss_share)
        return -(unequal + (examples - wins - losses) * math.log(rest))

    bounds = (max(0.0, -threshold) + 1e-9, (1 - threshold) / 2 - 1e-9)
    share = optimize.minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    expected = (wins - losses - examples * threshold) / math.sqrt(examples * (2 * share + threshold * (1 - threshold)))
    assert tango_z(wins, losses, examples, threshold) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("wins", "losses", "examples"), [(0, 0, 50), (3, 0, 50), (0, 9, 50), (12, 5, 90), (60, 31, 900)]
)
def test_a_bound_lies_where_the_p_value_crosses(wins: int, losses: int, examples: int) -> None:
    pair = BinaryComparison(wins, losses, examples)
    lower, upper = pair.lower(0.95), pair.upper(0.95)
    assert lower < pair.gain < upper
    assert pair.p_above(lower - 1e-6) <= 0.05 <= pair.p_above(lower + 1e-6)
    assert pair.p_below(upper + 1e-6) <= 0.05 <= pair.p_below(upper - 1e-6)


def same_statement(comparison: Comparison, threshold: float, confidence: float) -> bool:
    """Whether bounds and p-values say the same of the threshold."""
    alpha = 1 - confidence
    above = (comparison.p_above(threshold) < alpha) == (comparison.lower(confidence) > threshold)
    below = (comparison.p_below(threshold) < alpha) == (comparison.upper(confidence) < threshold)
    return above and below


CONFIDENCES = (0.3, 0.5, 0.75, 0.9, 0.9375, 0.95, 0.975, 0.99, 0.999)  # also where groups in a row are just enough


def test_a_p_value_and_a_bound_are_one_statement_for_right_or_wrong() -> None:
    rng = np.random.default_rng(8)
    cases = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (20, 0, 20), (0, 20, 20), (40, 0, 40), (7, 7, 300), (30, 30, 60)]
    for examples in rng.integers(1, 400, 60).tolist():
        differing = int(rng.integers(0, min(examples, 60) + 1))
        wins = int(rng.integers(0, differing + 1))
        cases.append((wins, differing - wins, examples))
    for wins, losses, examples in cases:
        pair = BinaryComparison(wins, losses, examples)
        for threshold in (-1.0, -0.02, 0.0, pair.gain, 1.0, *rng.uniform(-1, 1, 3)):
            for confidence in CONFIDENCES:
                assert same_statement(pair, threshold, confidence), (pair, threshold, confidence)


def test_a_p_value_and_a_bound_are_one_statement_for_any_number_of_groups() -> None:
    rng = np.random.default_rng(9)
    for groups in (1, 2, 3, 4, 5, 6, 7, 8, 12, 40, 1000):
        draws = rng.normal(0.1, 1, (4, 300))
        for resampled in (draws[0], draws[1].round(), np.abs(draws[2].round()), np.full(300, 0.1), draws[3][:1]):
            comparison = ResampledComparison(float(resampled.mean()), resampled, groups)
            thresholds = rng.choice(resampled, 3)  # exactly where bounds lie
            for threshold in (-10, 0, 0.1, 10, *thresholds, *rng.normal(0, 1, 3)):
                for confidence in (*CONFIDENCES, 1 - comparison.p_below(threshold), 1 - comparison.p_above(threshold)):
                    assert same_statement(comparison, threshold, confidence), (groups, threshold, confidence)


@pytest.mark.parametrize("groups", [5, 6, 8, 12, 30])
def test_a_p_value_of_few_groups_gives_no_more_false_alarms_than_it_says(groups: int) -> None:
    rng = np.random.default_rng(10)
    trials, resamples = 3000, 1000
    differences = rng.normal(size=(groups, trials))  # the two models are equally good
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples) / groups @ differences
    alarms = [ResampledComparison(0.0, gains, groups).p_below(0.0) < 0.05 for gains in drawn.T]
    assert np.mean(alarms) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_all_groups_agreeing_is_no_surer_than_their_number() -> None:
    comparison = resampled(np.ones(80), np.zeros(80), np.repeat(np.arange(6), 20)[:80])
    assert comparison.p_above(0) >= 0.5**4
    assert comparison.p_below(0) == 1


def test_exchanging_the_models_mirrors_the_interval() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.gamma(1, size=(2, 300))
    groups = rng.integers(0, 80, 300)
    for there, back in (
        (BinaryComparison(9, 4, 100), BinaryComparison(4, 9, 100)),
        (BinaryComparison(50, 31, 800), BinaryComparison(31, 50, 800)),
        (resampled(one, two, groups), resampled(two, one, groups)),
        (resampled(one > 1, two > 1, groups), resampled(two > 1, one > 1, groups)),
    ):
        assert there.gain == pytest.approx(-back.gain)
        assert there.lower(0.95) == pytest.approx(-back.upper(0.95), abs=1e-9)
        assert there.p_above(0.01) == pytest.approx(back.p_below(-0.01))


@pytest.mark.parametrize(
    ("win", "lose", "examples"), [(0.05, 0.05, 200), (0.08, 0.03, 200), (0.02, 0.02, 1000), (0.01, 0.01, 300)]
)
def test_the_true_gain_is_rarely_under_the_lower_bound(win: float, lose: float, examples: int) -> None:
    rng = np.random.default_rng(7)
    counts = rng.multinomial(examples, [win, lose, 1 - win - lose], size=3000)
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    missed = sum(
        count
        for (wins, losses, _), count in zip(kinds, times, strict=True)
        if BinaryComparison(int(wins), int(losses), examples).lower(0.95) > win - lose
    )
    assert missed / 3000 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)


def test_the_bootstrap_of_means_has_the_textbook_standard_error() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 400))
    comparison = resampled(one, two, np.arange(400))
    assert comparison.gain == pytest.approx((one - two).mean())
    assert comparison.standard_error == pytest.approx((one - two).std() / math.sqrt(400), rel=0.03)
    assert comparison.lower(0.95) == pytest.approx(comparison.gain - 1.645 * comparison.standard_error, rel=0.05)


def test_drawing_different_rows_only_is_the_same_bootstrap() -> None:
    rng = np.random.default_rng(2)
    edits = rng.poisson(0.3, size=(2, 500)).astype(float)
    few = resampled(edits[0], edits[1], np.arange(500))
    many = resampled(edits[0] + rng.normal(0, 1e-9, 500), edits[1], np.arange(500))  # now every row is different
    assert few.lower(0.95) == pytest.approx(many.lower(0.95), abs=0.004)
    assert few.standard_error == pytest.approx(many.standard_error, rel=0.03)


def test_a_ratio_is_resampled_as_a_ratio_of_sums() -> None:
    words = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 91])
    fewer_edits, more_edits = np.array([0.0] * 9 + [9]), np.array([1.0] * 9 + [9])
    comparison = compare((fewer_edits, words), (more_edits, words), np.arange(10), higher_is_better=False)
    assert comparison.gain == pytest.approx(9 / 100)  # not the mean of the rates, 0.9


def test_groups_that_move_together_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 25)
    shift = rng.normal(0, 0.3, 40)[groups]
    one, two = rng.random(1000) < 0.5 + shift, rng.random(1000) < 0.5
    alone = compare((one, np.ones(1000)), (two, np.ones(1000)), np.arange(1000), binary=True)
    grouped = compare((one, np.ones(1000)), (two, np.ones(1000)), groups, binary=True)
    assert isinstance(alone, BinaryComparison)
    assert isinstance(grouped, ResampledComparison)
    assert grouped.standard_error > 1.5 * alone.standard_error


def test_the_cluster_bootstrap_errs_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(20), 10)
    missed = 0
    for _ in range(400):
        difference = rng.normal(0, 0.5, 20)[groups] + rng.normal(0, 1, 200)
        comparison = compare((difference, np.ones(200)), (np.zeros(200), np.ones(200)), groups, resamples=1000)
        missed += comparison.lower(0.95) > 0
    assert 8 <= missed <= 36  # 20 expected; binomial 99.9 % range


def test_too_few_groups_give_no_bound_at_all() -> None:
    assert (min_groups(0.95), min_groups(0.99), min_groups(0.5)) == (5, 7, 2)
    comparison = resampled(np.ones(80), np.zeros(80), np.repeat(np.arange(4), 20))
    assert (comparison.lower(0.95), comparison.upper(0.95)) == (-math.inf, math.inf)


def test_the_bootstrap_repeats_itself_exactly() -> None:
    one, two = np.random.default_rng(5).random((2, 100))
    assert np.array_equal(resampled(one, two, np.arange(100)).resampled, resampled(one, two, np.arange(100)).resampled)


def test_resamples_without_any_word_do_not_break_the_ratio() -> None:
    words = np.array([0.0] * 30 + [5])
    comparison = compare((words * 0, words), (words, words), np.arange(31), higher_is_better=False)
    assert np.isfinite(comparison.lower(0.95))


def test_holm_is_holms() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (9, 10), (10, 10), (812, 1000)])
def test_wilson_is_wilsons(successes: int, trials: int) -> None:
    reference = stats.binomtest(successes, trials).proportion_ci(0.9, method="wilson")
    assert wilson(successes, trials, 0.95) == pytest.approx((reference.low, reference.high))


def test_that_many_more_examples_do_decide_four_times_in_five() -> None:
    win, lose, examples = 0.06, 0.04, 500
    more = examples_to_decide(BinaryComparison(30, 20, examples), examples, 0.0, 0.95)
    assert more is not None
    rng = np.random.default_rng(6)
    counts = rng.multinomial(examples + more, [win, lose, 1 - win - lose], size=2000)
    decided = np.mean([paired_p(int(wins), int(losses), examples + more) < 0.05 for wins, losses, _ in counts])
    assert decided == pytest.approx(0.8, abs=0.05)


def test_no_number_of_examples_decides_what_does_not_differ() -> None:
    assert examples_to_decide(BinaryComparison(0, 0, 100), 100, 0.0, 0.95) is None
    assert examples_to_decide(BinaryComparison(5, 5, 100), 100, 0.0, 0.95) is None
