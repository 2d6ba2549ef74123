"""How many calls at a time: simulated servers and a clock of ours."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from cope_train.models import api_limits
from cope_train.models.api_limits import START, Limits, Pace, back_off, retry_after

MORNING = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drive(limits: Limits, clock: Clock, calls: int, takes: Callable[[int], float], tokens: int | None = 100) -> list:
    """Keep as many calls under way as the limits allow; a call takes `takes(calls under way)`. The limits over time."""
    under_way, seen = [], []
    while len(seen) < calls:
        while len(under_way) < limits.now:
            seconds = takes(len(under_way) + 1)
            heapq.heappush(under_way, (clock.now + seconds, seconds, limits.sent(1000)))
        clock.now, seconds, call = heapq.heappop(under_way)
        limits.answered(call, seconds, tokens, tokens or 0, len(under_way) + 1 >= limits.now)
        seen.append(limits.now)
    return seen


def test_it_starts_small_and_doubles_up_to_the_ceiling() -> None:
    clock = Clock()
    limits = Limits(64, clock=clock)
    assert limits.now == START
    seen = drive(limits, clock, 200, lambda under_way: 1.0)
    assert [now for now, before in zip(seen[1:], seen, strict=False) if now != before] == [16, 32, 64]
    assert Limits(3).now == 3


def test_overload_halves_once_a_round_then_it_grows_by_one() -> None:
    clock = Clock()
    limits = Limits(64, clock=clock)
    drive(limits, clock, 200, lambda under_way: 1.0)
    sent = [limits.sent(10) for _ in range(64)]
    clock.now += 1
    for call in sent:
        limits.failed(call, overloaded=True, pause=None)
    assert limits.now == 32
    clock.now += 1
    seen = drive(limits, clock, 33, lambda under_way: 1.0)
    assert seen[-1] == 33


def test_it_never_falls_below_one() -> None:
    clock = Clock()
    limits = Limits(8, clock=clock)
    for _ in range(10):
        clock.now += 1
        limits.failed(limits.sent(10), overloaded=True, pause=None)
        clock.now += 1
    assert limits.now == 1


def test_a_failure_that_is_no_overload_changes_nothing() -> None:
    clock = Clock()
    limits = Limits(8, clock=clock)
    limits.failed(limits.sent(10), overloaded=False, pause=None)
    assert (limits.now, limits.wait() <= 0) == (START, True)


def test_a_server_that_only_queues_beyond_twelve_is_not_flooded() -> None:
    clock = Clock()
    limits = Limits(256, clock=clock)
    seen = drive(limits, clock, 5000, lambda under_way: max(1.0, under_way / 12))
    assert max(seen) <= 32
    assert all(12 <= now <= 25 for now in seen[1000:])


def test_a_server_that_batches_is_used_to_the_ceiling() -> None:
    # Slower for each, faster for all: a GPU that answers many at a time.
    clock = Clock()
    limits = Limits(64, clock=clock)
    assert drive(limits, clock, 2000, lambda under_way: 1 + under_way / 32)[-1] == 64


def test_longer_answers_are_no_slower_server() -> None:
    clock = Clock()
    limits = Limits(16, clock=clock)
    drive(limits, clock, 100, lambda under_way: 1.0, tokens=100)
    seen = drive(limits, clock, 200, lambda under_way: 8.0, tokens=1000)
    assert set(seen) == {16}


def test_a_server_that_got_slower_gets_fewer_calls() -> None:
    clock = Clock()
    limits = Limits(64, clock=clock)
    drive(limits, clock, 300, lambda under_way: 1.0)
    seen = drive(limits, clock, 400, lambda under_way: 5.0)
    assert min(seen) < 48


def test_few_calls_under_way_teach_nothing() -> None:
    limits = Limits(64)
    for _ in range(100):
        limits.answered(limits.sent(10), 1.0, 10, 10, full=False)
    assert limits.now == START


def test_a_pause_holds_back_every_call() -> None:
    clock = Clock()
    limits = Limits(8, clock=clock)
    call, other = limits.sent(10), limits.sent(10)
    limits.failed(call, overloaded=True, pause=30.0)
    limits.failed(other, overloaded=True, pause=5.0)
    assert limits.wait() == 30.0
    clock.now += 30
    assert limits.wait() == 0.0


def test_requests_are_spread_over_the_minute() -> None:
    clock = Clock()
    limits = Limits(8, requests_per_minute=30, clock=clock)
    times = []
    while len(times) < 61:
        clock.now += max(limits.wait(), 0)
        limits.sent(10)
        times.append(clock.now - 100)
    assert times == [2.0 * i for i in range(61)]


def test_tokens_are_charged_as_expected_and_corrected_when_known() -> None:
    clock = Clock()
    limits = Limits(8, tokens_per_minute=6000, clock=clock)
    call = limits.sent(1000)
    assert limits.wait() == pytest.approx(10)
    limits.answered(call, 1.0, 200, 200, full=False)
    assert limits.wait() == pytest.approx(2)
    clock.now += 2
    limits.sent(1000)  # now 200 are expected
    assert limits.wait() == pytest.approx(2)


def test_a_failed_call_gives_its_tokens_back() -> None:
    clock = Clock()
    limits = Limits(8, tokens_per_minute=6000, clock=clock)
    limits.failed(limits.sent(1000), overloaded=False, pause=None)
    assert limits.wait() == pytest.approx(0)


def test_an_open_pace_never_waits() -> None:
    pace = Pace(None, Clock())
    pace.charge(1e9)
    assert pace.wait() <= 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:20 GMT"}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_what_a_server_says_of_when_to_come_back(headers: dict, seconds: float | None) -> None:
    assert retry_after(headers, MORNING) == seconds


def test_back_off_doubles_is_spread_and_ends_at_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(api_limits.random, "uniform", lambda low, high: asked.append((low, high)) or high)
    assert [back_off(attempt) for attempt in (0, 1, 2, 3, 20)] == [0.5, 1.0, 2.0, 4.0, 60.0]
    assert {low for low, _ in asked} == {0}
