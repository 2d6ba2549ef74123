"""How many calls a server bears at a time, found out by asking; and how fast calls may follow each other.

Nothing here waits or reads the wall clock by itself: the clock is handed in, so that a test can turn it.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from email.utils import mktime_tz, parsedate_tz

START = 8
BACK_OFF = 0.5  # seconds before the first further attempt, at most; doubled for each that follows
_LONGEST_BACK_OFF = 60.0
_OWN_TIME = 32  # tokens' worth of time that a call takes beside its tokens (prompt, network)
_BETTER = 1.1  # a gain in throughput that is more than noise


def back_off(attempt: int) -> float:
    """Seconds to wait after failed attempt 0, 1, ...: exponential with full jitter, so that callers spread out."""
    return random.uniform(0, min(_LONGEST_BACK_OFF, BACK_OFF * 2**attempt))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a server asks to be left alone: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date.

    `now` is the time of day (seconds since the epoch). None when the server does not say, or says no time.
    """
    for header, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(header, "")) / scale
        except ValueError:
            continue
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    date = parsedate_tz(headers.get("retry-after", ""))
    if date is None:
        return None
    return max(mktime_tz(date) - (time.time() if now is None else now), 0.0)


class Pace:
    """Spreads an amount evenly over each minute, whatever was sent at once before: no minute holds more than allowed
    and one call."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float]) -> None:
        self._each = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._ready = -math.inf

    def wait(self) -> float:
        """Seconds until the next call may be sent; 0 or less: now."""
        return self._ready - self._clock()

    def charge(self, amount: float) -> None:
        """Take an amount for a call that is sent now."""
        if self._each:
            self._ready = max(self._ready, self._clock()) + amount * self._each

    def correct(self, amount: float) -> None:
        """Add to what was taken for a call, or give some back."""
        if self._each:
            self._ready += amount * self._each


class Limits:
    """The number of calls that may be under way (`now`), and when the next may be sent.

    The number doubles with every round of answers until the server is first too busy, then grows by one a round; it
    halves, once a round, when the server says it is overloaded. It also steps back when a round brings no more
    throughput than fewer calls did while its answers take clearly longer. Time is compared per token, so that long
    answers are not taken for a slow server.
    """

    def __init__(
        self,
        ceiling: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = min(START, ceiling)
        self.retry_at = -math.inf
        self._ceiling = ceiling
        self._clock = clock
        self._requests = Pace(requests_per_minute, clock)
        self._tokens = Pace(tokens_per_minute, clock)
        self._mean_tokens: float | None = None
        self._doubling = True
        self._shrunk_at = -math.inf
        self._best = 0.0  # throughput, and the number of calls and the time per token that it was had with
        self._best_calls = 0
        self._best_time = 0.0
        self._start_round()

    def wait(self) -> float:
        """Seconds until the next call may be sent; 0 or less: now."""
        return max(self.retry_at - self._clock(), self._requests.wait(), self._tokens.wait())

    def sent(self, most_tokens: int) -> tuple[float, float]:
        """Enter a call that is sent now; what it returns is handed back when the call has ended.

        `most_tokens` is what the call can take in all; how much it will take is known from others, once there are some.
        """
        expected = float(most_tokens if self._mean_tokens is None else min(most_tokens, self._mean_tokens))
        self._requests.charge(1)
        self._tokens.charge(expected)
        return self._clock(), expected

    def answered(self, call: tuple[float, float], seconds: float, tokens: int | None, longest: int, full: bool) -> None:
        """A call brought its answer in `seconds`. `tokens` were billed in all, `longest` is the tokens of one choice.

        `full`: as many calls were under way as may be; else there is nothing to learn about more.
        """
        if tokens is not None:
            self._tokens.correct(tokens - call[1])
            mean = tokens if self._mean_tokens is None else self._mean_tokens
            self._mean_tokens = mean + (tokens - mean) / 32
        # What was sent in the last round was answered among fewer or more calls than are under way now.
        if not full or call[0] < self._round_at:
            return
        self._round_calls += 1
        self._round_seconds += seconds
        self._round_tokens += _OWN_TIME + longest
        if self._round_calls >= self.now:
            self._end_round()

    def failed(self, call: tuple[float, float], overloaded: bool, pause: float | None) -> None:
        """A call failed: `overloaded` says the server has too much to do, `pause` how long to leave it alone."""
        self._tokens.correct(-call[1])
        if pause is not None:
            self.retry_at = max(self.retry_at, self._clock() + pause)
        # Calls that were under way when the number last fell tell nothing new.
        if overloaded and call[0] >= self._shrunk_at:
            self._shrink(self.now / 2)

    def _end_round(self) -> None:
        each = self._round_seconds / self._round_tokens
        rate = self.now / each
        if rate > _BETTER * self._best:
            self._best, self._best_calls, self._best_time = rate, self.now, each
        elif self.now > self._best_calls and each > 1.5 * self._best_time:
            self._shrink(max(0.8 * self.now, self._best_calls))
            return
        elif self.now <= self._best_calls and each > 2 * self._best_time:
            # The server itself got slower, by others' work perhaps: what it once could do fades from memory.
            self._best, self._best_time = 0.8 * self._best, self._best_time / 0.8
            self._shrink(0.8 * self.now)
            return
        self.now = min(self._ceiling, 2 * self.now if self._doubling else self.now + 1)
        self._start_round()

    def _shrink(self, calls: float) -> None:
        self.now = max(1, int(calls))
        self._doubling = False
        self._shrunk_at = self._clock()
        self._start_round()

    def _start_round(self) -> None:
        self._round_at = self._clock()
        self._round_calls = self._round_tokens = 0
        self._round_seconds = 0.0
