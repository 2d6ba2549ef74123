"""Traces, and lines computed from lines, as arrays over problems and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cope_train.evaluation.lines import from_traces, random_escalation
from cope_train.records import Trace
from tests.evaluation.made import FAILURE, PRICES, RIGHT, UNPARSEABLE, WRONG, stage, trace, used

NAN = float("nan")
ORDER = ["p0", "p1", "p2", "p3"]


def early(problem: str, verdict=RIGHT, seed: int = 0) -> Trace:
    return trace(problem, stage("stage1", verdict, 1.0, {"small": used(9, 90, 80, seconds=2.0)}), seed=seed)


def late(problem: str, verdict=RIGHT, seed: int = 0) -> Trace:
    first = stage("stage1", WRONG, 0.5, {"small": used(9, 90, 80, seconds=2.0)}, accepted=False)
    return trace(problem, first, stage("stage2", verdict, usage={"large": used(2, 100, 50, seconds=1.0)}), seed=seed)


def line(*traces: Trace, name: str = "cope", known=PRICES):
    return from_traces(name, traces, ORDER, known, "large")


def test_a_line_sums_up_its_traces() -> None:
    found = line(early("p2"), early("p0", WRONG), late("p1"), late("p3", UNPARSEABLE))
    assert found.outcomes.tolist() == [[0], [1], [1], [0]]  # in the problems' order, not the traces'
    assert found.usd == pytest.approx(np.array([[0], [45e-6], [0], [45e-6]]))
    assert found.share == {"stage1": 0.5, "stage2": 0.5}
    assert (found.large_calls, found.no_large) == (1.0, 0.5)
    assert (found.small_tokens, found.large_tokens, found.seconds) == (170, 75, 2.5)
    assert (found.unparseable, found.failures) == (1, 0)
    assert found.accepted == {"stage1": {"n": 2, "accuracy": 0.5}}


def test_failures_are_nan_and_count_in_nothing_but_their_number() -> None:
    dead = trace("p1", *late("p1").stages[:1], stage("stage2", FAILURE, usage={"large": used(7)}))
    found = line(early("p0"), dead, late("p2"))
    assert found.outcomes == pytest.approx(np.array([[1], [NAN], [1], [NAN]]), nan_ok=True)  # p3 has no trace
    assert found.usd == pytest.approx(np.array([[0], [NAN], [45e-6], [NAN]]), nan_ok=True)
    assert found.share == {"stage1": 0.5, "stage2": 0.5}
    assert (found.large_calls, found.failures) == (1.0, 1)


def test_seeds_are_columns() -> None:
    found = line(early("p0", seed=9), early("p0", WRONG, seed=2), late("p1", seed=9))
    assert found.outcomes == pytest.approx(np.array([[0, 1], [NAN, 1], [NAN, NAN], [NAN, NAN]]), nan_ok=True)


def test_unknown_costs_and_tokens_are_none() -> None:
    assert line(early("p0"), late("p1"), known=PRICES | {"large": None}).usd is None
    assert line(early("p0"), known=PRICES | {"large": None}).usd is not None  # the large model was not asked
    untold = trace("p1", stage("solve", usage={"large": used(1, None, None)}))
    found = line(early("p0"), untold)
    assert (found.usd, found.large_tokens, found.small_tokens) == (None, None, 85)


def test_a_line_of_failures_only() -> None:
    found = line(trace("p0", stage("stage1", FAILURE)))
    assert np.isnan(found.outcomes).all()
    assert (found.failures, found.share, found.accepted) == (1, {}, {})
    assert {found.large_calls, found.no_large, found.small_tokens, found.seconds} == {None}


SMALL = line(*(trace(p, stage("solve", v, usage={"small": used(1, 10, 10, 4.0)})) for p, v in
               zip(ORDER, (RIGHT, RIGHT, WRONG, FAILURE), strict=True)))  # fmt: skip
LARGE = line(*(trace(p, stage("solve", v, usage={"large": used(1, 100, 100, 8.0)})) for p, v in
               zip(ORDER, (RIGHT, WRONG, RIGHT, RIGHT), strict=True)))  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_random_escalation_is_the_expectation_of_a_lottery(share: float) -> None:
    found = random_escalation(SMALL, LARGE, share)
    assert found.name == "random-escalation"
    assert found.outcomes == pytest.approx(np.array([[1], [1 - share], [share], [NAN]]), nan_ok=True)
    assert found.usd[:3] == pytest.approx(np.full((3, 1), share * 75e-6))
    assert found.share == {"small": 1 - share, "large": share}
    assert (found.large_calls, found.no_large) == pytest.approx((share, 1 - share))
    assert (found.small_tokens, found.large_tokens) == pytest.approx((20 * (1 - share), 200 * share))
    assert found.seconds == pytest.approx(4 + 4 * share)
    assert found.failures == 1


def test_random_escalation_agrees_with_drawing_the_lots() -> None:
    rng = np.random.default_rng(0)
    lots = rng.random((20_000, 4)) < 0.3
    drawn = np.where(lots, LARGE.outcomes[:, 0], SMALL.outcomes[:, 0]).mean(axis=0)
    assert random_escalation(SMALL, LARGE, 0.3).outcomes[:3, 0] == pytest.approx(
        drawn[:3], abs=4 * math.sqrt(0.21 / 20_000)
    )


def test_random_escalation_keeps_what_is_unknown_unknown() -> None:
    unknown = line(late("p0"), known=PRICES | {"large": None})
    assert random_escalation(SMALL, unknown, 0.5).usd is None
