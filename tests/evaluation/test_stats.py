"""Every statistic against a closed form, a hand-computed value or a seeded simulation."""

from __future__ import annotations

import warnings
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from cope_train.evaluation import stats

NAN = float("nan")
Z = norm.ppf(0.975)
OUTCOME = st.sampled_from([0.0, 1.0, NAN])


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def rights(count: int, of: int) -> np.ndarray:
    return (np.arange(of) < count).astype(float)[:, None]


def wilson(p: float, n: int) -> tuple[float, float]:
    middle, half = p + Z**2 / (2 * n), Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)


def test_accuracy_is_near_the_normal_approximation_at_large_n() -> None:
    found = stats.accuracy(rights(700, 1000), 4000)
    half = Z * sqrt(0.7 * 0.3 / 1000)
    assert found.value == pytest.approx(0.7)
    assert found.interval == pytest.approx((0.7 - half, 0.7 + half), abs=0.1 * half)


@pytest.mark.parametrize("what", ["accuracy", "difference"])
def test_the_interval_covers_the_truth_95_times_of_100(what: str) -> None:
    rng = np.random.default_rng(1)
    covered, times = 0, 1000
    for _ in range(times):
        one = (rng.random((100, 1)) < 0.7).astype(float)
        two = np.where(rng.random((100, 1)) < 0.6, one, rng.random((100, 1)) < 0.5)
        truth = 0.7 if what == "accuracy" else 0.4 * (0.7 - 0.5)
        estimate = stats.accuracy(one, 400) if what == "accuracy" else stats.difference(one, two, 400)
        covered += estimate.interval[0] <= truth <= estimate.interval[1]
    # Three standard errors of a share of 0.95, and half a point that percentile intervals lack at n = 100.
    assert 0.95 - 0.005 - 3 * sqrt(0.95 * 0.05 / times) <= covered / times <= 0.95 + 3 * sqrt(0.95 * 0.05 / times)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (7, 10), (49, 49), (20, 49), (200, 200), (0, 200)])
def test_few_problems_or_one_outcome_have_wilsons_interval(right: int, n: int) -> None:
    found = stats.accuracy(rights(right, n), 200)
    assert found.value == right / n
    assert found.interval == pytest.approx(wilson(right / n, n))


def test_from_fifty_problems_on_it_is_a_bootstrap() -> None:
    low, high = stats.accuracy(rights(40, 50), 400).interval
    assert (low, high) != pytest.approx(wilson(0.8, 50), abs=1e-6)
    assert 0.6 < low < 0.8 < high < 1


def test_the_same_outcomes_give_the_same_interval() -> None:
    assert stats.accuracy(rights(60, 90), 300) == stats.accuracy(rights(60, 90), 300)


def test_seeds_are_nested_in_problems() -> None:
    rng = np.random.default_rng(2)
    one, two = ((rng.random((120, 1)) < p).astype(float) for p in (0.7, 0.6))
    many, also = np.repeat(one, 5, axis=1), np.repeat(two, 5, axis=1)
    assert stats.accuracy(many, 500) == stats.accuracy(one, 500)
    assert stats.difference(many, also, 500) == stats.difference(one, two, 500)
    assert stats.ratio(many, also, 500) == stats.ratio(one, two, 500)
    assert stats.mcnemar(many, also) == stats.mcnemar(one, two)
    assert stats.power(many, also, 0.05) == stats.power(one, two, 0.05)
    # What a bootstrap over all outcomes would have claimed.
    low, high = stats.accuracy(one, 500).interval
    flat = stats.accuracy(many.reshape(-1, 1), 500).interval
    assert flat[1] - flat[0] < 0.6 * (high - low)


def test_mean_and_its_interval() -> None:
    values = np.random.default_rng(3).exponential(2.0, (2000, 1))
    values[7] = NAN
    known = values[~np.isnan(values)]
    half = Z * known.std(ddof=1) / sqrt(len(known))
    found = stats.mean(values, 3000)
    assert found.value == pytest.approx(known.mean())
    assert found.interval == pytest.approx((known.mean() - half, known.mean() + half), abs=0.1 * half)
    assert stats.mean(column(3, 3, 3), 100) == stats.Estimate(3.0, (3.0, 3.0))


def test_failures_are_left_out_in_pairs() -> None:
    one, two = column(1, NAN, 0, 1, 0), column(0, 1, NAN, 1, 0)
    assert stats.paired(one, two).tolist() == [1, 0, 0]
    assert stats.difference(one, two, 200).value == pytest.approx(1 / 3)
    # By seed: the seed in which one failed leaves both, the other stays in both.
    assert stats.paired(np.array([[1.0, NAN]]), np.array([[0.0, 1.0]])).tolist() == [1]
    assert stats.per_problem(np.array([[1.0, NAN], [NAN, NAN], [1.0, 0.0]])).tolist() == pytest.approx(
        [1, NAN, 0.5], nan_ok=True
    )


def test_a_difference_is_near_the_normal_approximation_of_paired_data() -> None:
    # 150 wins, 100 losses, 750 ties.
    one = np.repeat([1.0, 0.0, 1.0], [150, 100, 750])[:, None]
    two = np.repeat([0.0, 1.0, 1.0], [150, 100, 750])[:, None]
    half = Z * sqrt((0.25 - 0.05**2) / 1000)
    found = stats.difference(one, two, 4000)
    assert found.value == pytest.approx(0.05)
    assert found.interval == pytest.approx((0.05 - half, 0.05 + half), abs=0.1 * half)


@settings(deadline=None)
@given(st.lists(st.tuples(OUTCOME, OUTCOME), max_size=12))
def test_a_difference_changes_its_sign_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    one, two = column(*(a for a, _ in pairs)), column(*(b for _, b in pairs))
    there, back = stats.difference(one, two, 100), stats.difference(two, one, 100)
    if there.value is None:
        assert back.value is None
        return
    assert there.value == pytest.approx(-back.value)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert -1 <= there.interval[0] <= there.value + 1e-12
    assert there.value - 1e-12 <= there.interval[1] <= 1


@pytest.mark.parametrize("n", [1, 3, 200])
def test_pairs_that_all_agree_leave_room_for_what_was_not_seen(n: int) -> None:
    share = 1 - 0.025 ** (1 / n)  # Clopper and Pearson's upper bound for 0 of n
    same = stats.difference(rights(n, n), rights(n, n), 200)
    assert (same.value, same.interval) == (0, pytest.approx((-share, share)))
    better = stats.difference(rights(n, n), rights(0, n), 200)
    assert (better.value, better.interval) == (1, pytest.approx((1 - 2 * share, 1)))


def test_mcnemar_by_hand_and_by_scipy() -> None:
    one, two = column(*[1] * 8, 0, 1, 0), column(*[0] * 8, 1, 1, 0)
    assert stats.mcnemar(one, two) == pytest.approx(2 * (comb(9, 0) + comb(9, 1)) / 2**9)  # 8 wins, 1 loss
    rng = np.random.default_rng(4)
    one, two = ((rng.random((300, 1)) < p).astype(float) for p in (0.7, 0.6))
    wins, losses = int((one > two).sum()), int((one < two).sum())
    assert stats.mcnemar(one, two) == pytest.approx(binomtest(wins, wins + losses, 0.5).pvalue)


def test_mcnemar_of_seeds_counts_each_problem_once() -> None:
    one, two = np.array([[1.0, 1, 0], [1, 0, 1], [1, 1, NAN]]), np.array([[0.0, 0, 1], [0, 0, 0], [0, 0, 1]])
    assert stats.mcnemar(one, two) == pytest.approx(2 / 2**3)  # three problems, all won on balance


def test_mcnemar_at_its_edges() -> None:
    assert stats.mcnemar(column(1, 0), column(1, 0)) == 1.0
    assert stats.mcnemar(column(NAN), column(1)) is None
    assert stats.mcnemar(column(0.5, 1), column(1, 1)) is None  # an expectation is neither right nor wrong


def test_auroc_counts_pairs_and_its_interval_covers() -> None:
    scores, right = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert stats.auroc(scores, right).value == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert stats.auroc(scores, np.ones(4, dtype=bool)) == stats.Estimate(None, None)
    rng, covered = np.random.default_rng(6), 0
    true = 0.760250  # Phi(1 / sqrt 2): scores of the right are one standard deviation higher
    for _ in range(400):
        right = np.arange(120) < 60
        found = stats.auroc(rng.normal(size=120) + right, right)
        covered += found.interval[0] <= true <= found.interval[1]
    assert 0.92 <= covered / 400 <= 0.98


def test_a_ratio_is_near_the_delta_method() -> None:
    rng = np.random.default_rng(5)
    two = rng.gamma(4.0, 1.0, (2000, 1))
    one = 0.5 * two + rng.gamma(2.0, 0.5, (2000, 1))
    value = one.sum() / two.sum()
    half = Z * (one - value * two).std(ddof=1) / two.mean() / sqrt(2000)
    found = stats.ratio(one, two, 3000)
    assert found.value == pytest.approx(value)
    assert found.interval == pytest.approx((value - half, value + half), abs=0.1 * half)


def test_a_ratio_is_of_sums_over_problems_that_both_have() -> None:
    assert stats.ratio(column(1, 5, NAN), column(4, NAN, 3), 100) == stats.Estimate(0.25, (0.25, 0.25))
    pair = np.array([[1, NAN]]), np.array([[1.0, 3]])  # one seed that both have
    assert stats.ratio(*pair, 100).value == stats.ratio(*pair[::-1], 100).value == 1.0
    assert stats.ratio(column(0, 0), column(2, 4), 100) == stats.Estimate(0.0, (0.0, 0.0))
    assert stats.ratio(column(1, 2), column(0, 0), 100) == stats.Estimate(None, None)


def test_a_ratio_whose_resamples_may_divide_by_nothing_has_no_interval() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stats.ratio(column(0, 0, 0, 6), column(0, 0, 0, 2), 200) == stats.Estimate(3.0, None)
        assert stats.ratio(column(1, 1, 1, 3), column(0, 0, 0, 2), 200) == stats.Estimate(3.0, None)


def test_power_by_hand() -> None:
    one, two = rights(10, 100), np.roll(rights(10, 100), 10, axis=0)  # 10 wins, 10 losses, 80 ties
    error = sqrt(20 / 99 / 100)
    assert stats.power(one, two, 0.1) == pytest.approx(norm.cdf(0.1 / error - Z))
    assert stats.power(one, two, 1e-9) == pytest.approx(0.025, abs=1e-3)
    assert stats.power(one, one, 0.1) is None
    assert stats.power(column(1), column(0), 0.1) is None


def test_power_is_how_often_non_inferiority_is_shown_when_there_is_no_difference() -> None:
    rng = np.random.default_rng(6)
    shown, claimed, times, margin = 0, [], 400, 0.04
    for _ in range(times):
        gap = rng.choice([1.0, -1.0, 0.0], size=(400, 1), p=[0.05, 0.05, 0.9])
        one, two = (gap > 0).astype(float), (gap < 0).astype(float)
        shown += stats.difference(one, two, 400).interval[0] > -margin
        claimed.append(stats.power(one, two, margin))
    assert 0.3 < np.mean(claimed) < 0.9  # where a wrong formula would show
    assert shown / times == pytest.approx(np.mean(claimed), abs=3 * sqrt(0.25 / times))


@settings(deadline=None)
@given(st.lists(OUTCOME, max_size=10))
def test_accuracy_lies_within_its_interval(outcomes: list[float]) -> None:
    found = stats.accuracy(column(*outcomes), 100)
    if all(np.isnan(outcomes)):
        assert found == stats.Estimate(None, None)
    else:
        assert found.value == pytest.approx(np.nanmean(outcomes))
        assert -1e-12 <= found.interval[0] <= found.value + 1e-12
        assert found.value - 1e-12 <= found.interval[1] <= 1 + 1e-12


@pytest.mark.parametrize("none", [np.empty((0, 1)), np.full((3, 2), NAN)])
def test_nothing_to_estimate_from(none: np.ndarray) -> None:
    nothing = stats.Estimate(None, None)
    assert stats.accuracy(none, 100) == stats.mean(none, 100) == nothing
    assert stats.difference(none, none, 100) == stats.ratio(none, none, 100) == nothing
    assert stats.mcnemar(none, none) is None
    assert stats.power(none, none, 0.1) is None
