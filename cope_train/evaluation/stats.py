"""Paired statistics over problems, on SciPy.

Outcomes are arrays [problems, seeds] of 0 to 1, with NaN for failures. The problem is the unit of resampling: seeds of
one problem are averaged first (a cluster bootstrap), since more seeds on the same problems are not more problems.
Intervals are 95 %, two-sided. Percentile intervals, not BCa: the differences are sums of many bounded terms, nearly
symmetric, and BCa fails on them when all resamples agree.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, bootstrap, norm

Interval = tuple[float, float]
_SMALL = 50  # below this many problems a bootstrap of proportions is too narrow (Brown, Cai and DasGupta 2001)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; both None when there is nothing to estimate it from."""

    value: float | None
    interval: Interval | None


def per_problem(outcomes: np.ndarray) -> np.ndarray:
    """[problems, seeds] to [problems]: the mean over a problem's seeds that did not fail, NaN where all did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is the NaN that is wanted
        return np.nanmean(outcomes, axis=1)


def accuracy(outcomes: np.ndarray, resamples: int) -> Estimate:
    """Mean outcome; Wilson's interval for few problems or when all agree, else a bootstrap over problems."""
    means = _known(per_problem(outcomes))
    if not len(means):
        return Estimate(None, None)
    value = float(means.mean())
    if len(means) < _SMALL or np.ptp(means) == 0:
        interval = binomtest(round(float(means.sum())), len(means)).proportion_ci(method="wilson")
        return Estimate(value, (float(interval.low), float(interval.high)))
    return Estimate(value, _bootstrap((means,), _mean, resamples))


def mean(values: np.ndarray, resamples: int) -> Estimate:
    """Mean of [problems, seeds] figures such as costs."""
    means = _known(per_problem(values))
    if not len(means):
        return Estimate(None, None)
    return Estimate(float(means.mean()), _bootstrap((means,), _mean, resamples))


def difference(one: np.ndarray, two: np.ndarray, resamples: int) -> Estimate:
    """Mean of one less two, over the same problems and seeds; failures of either are left out of both."""
    gaps = paired(one, two)
    if not len(gaps):
        return Estimate(None, None)
    if np.ptp(gaps) == 0:
        # All pairs agree, so there is nothing to resample: the share that may yet do otherwise (Clopper-Pearson), and
        # as far off as it can.
        gap, share = float(gaps[0]), float(binomtest(0, len(gaps)).proportion_ci().high)
        return Estimate(gap, (gap - share * (1 + gap), gap + share * (1 - gap)))
    return Estimate(float(gaps.mean()), _bootstrap((gaps,), _mean, resamples))


def ratio(one: np.ndarray, two: np.ndarray, resamples: int) -> Estimate:
    """Sum of one over sum of two, paired by problem and seed; None when two is nothing, no interval when it may be."""
    failed = np.isnan(one) | np.isnan(two)
    pairs = np.stack([per_problem(np.where(failed, np.nan, side)) for side in (one, two)])
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if not pairs.size or pairs[1].sum() == 0:
        return Estimate(None, None)

    def statistic(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return a.sum(axis=axis) / b.sum(axis=axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # resamples in which two is nothing have no ratio
        interval = _bootstrap(tuple(pairs), statistic, resamples)
    return Estimate(float(pairs[0].sum() / pairs[1].sum()), interval if np.isfinite(interval).all() else None)


def paired(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """[problems]: mean difference over the seeds in which neither failed; problems without such a seed are gone."""
    return _known(per_problem(one - two))


def mcnemar(one: np.ndarray, two: np.ndarray) -> float | None:
    """Exact two-sided p of McNemar's test; with several seeds, of the sign test on each problem's difference.

    None for outcomes that are expectations (a lot drawn with some probability): they are no pairs of right and wrong.
    """
    if not all(np.isin(_known(outcomes), (0.0, 1.0)).all() for outcomes in (one, two)):
        return None
    signs = np.sign(paired(one, two))
    wins, losses = int((signs > 0).sum()), int((signs < 0).sum())
    if not len(signs):
        return None
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def power(one: np.ndarray, two: np.ndarray, margin: float) -> float | None:
    """Chance to show non-inferiority when there is no true difference, given the spread of these pairs.

    Normal approximation, one-sided at 2.5 %: Phi(margin / standard error - 1.96). None where no pair differs.
    """
    gaps = paired(one, two)
    if len(gaps) < 2:
        return None
    error = float(gaps.std(ddof=1)) / np.sqrt(len(gaps))
    return None if error == 0 else float(norm.cdf(margin / error - norm.ppf(0.975)))


def auroc(scores: np.ndarray, right: np.ndarray) -> Estimate:
    """Probability that a right answer scores above a wrong one, ties half; interval of DeLong et al. (1988).

    `scores` and `right` are [problems]; None when all are right or all are wrong.
    """
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return Estimate(None, None)
    wins = (good[:, None] > bad) + 0.5 * (good[:, None] == bad)
    value = float(wins.mean())
    parts = [side.var(ddof=1) / len(side) if len(side) > 1 else 0.25 for side in (wins.mean(axis=1), wins.mean(axis=0))]
    half = float(norm.ppf(0.975) * np.sqrt(sum(parts)))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis=axis)


def _bootstrap(samples: tuple, statistic, resamples: int) -> Interval:
    value = statistic(*samples, axis=-1)
    if len(samples[0]) < 2 or all(np.ptp(sample) == 0 for sample in samples):
        return (float(value), float(value))
    result = bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // len(samples[0])),  # bounds memory at large n
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),  # the same traces always give the same report
    )
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))
