"""Requests on their way: looked up, leased, asked, committed, handed over; in windows, so that memory stays flat."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

from cope_train.models.budget import Budget
from cope_train.models.identity import completion_keys
from cope_train.models.store import Store
from cope_train.records import Backend, Failure, Outcome, Request

WINDOW = 256  # requests that are looked up and leased together
_AHEAD = 16 * WINDOW  # answers from the store that may wait for their taker
_BATCH = 64  # calls that are committed together at most
_POLL = 0.1  # seconds between looks at what other processes are buying


@dataclass(eq=False, slots=True)
class _Open:
    """A request that is not answered in full. `asked` are the keys that this process is getting for it."""

    position: int
    request: Request
    keys: list[str]
    known: dict[str, Outcome] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    @property
    def lacking(self) -> list[str]:
        return [key for key in self.keys if key not in self.known and key not in self.asked]

    @property
    def complete(self) -> bool:
        return all(key in self.known for key in self.keys)


class Flow:
    """One stream of requests through one backend. Iterate over it once."""

    def __init__(
        self,
        backend: Backend,
        store: Store,
        requests: Iterable[Request],
        enter: Callable[[Request, Sequence[str], Sequence[Outcome]], int],
        budget: Budget,
        wave: int | None = None,
    ) -> None:
        """`enter` puts a call into the store and returns its number; `wave` bounds what the backend is handed at once.

        A backend that works through all it is given before it takes more needs a wave.
        """
        self._backend, self._store, self._enter, self._budget = backend, store, enter, budget
        self._wave = wave
        self._source = enumerate(requests)
        self._exhausted = False
        self._unanswered, self._role = 0, ""
        self._lock = threading.RLock()  # a backend may take requests on a thread of its own
        self._ready: deque[_Open] = deque()
        self._waiting: dict[str, list[_Open]] = {}
        self._elsewhere: deque[_Open] = deque()
        self._backlog: deque[tuple[Request, list[str]]] = deque()
        self._sent: dict[int, tuple[Request, list[str]]] = {}
        self._entered: deque[tuple[int, list[str], Sequence[Outcome]]] = deque()

    def __iter__(self) -> Iterator[tuple[int, Request, tuple[Outcome, ...]]]:
        """(position, request, outcomes), as they become complete.

        Raises BudgetReached when the budget ended it before all were answered, and what the backend raises.
        """
        try:
            while True:
                self._fill()
                yield from self._hand_over()
                if self._backlog and not self._budget.reached:
                    yield from self._ask()
                elif self._elsewhere and not self._budget.reached:
                    time.sleep(_POLL)
                elif self._exhausted and not self._elsewhere:
                    break
                self._backlog = deque() if self._budget.reached else self._backlog
            if left := self._unanswered + len(self._open()):
                raise self._budget.error(self._backend.name, self._role, left)
        finally:
            self._store.flush()
            self._store.release(list(self._waiting))

    def _ask(self) -> Iterator[tuple[int, Request, tuple[Outcome, ...]]]:
        """Ask the backend for the backlog, and for what comes after it as long as there is room."""
        self._sent = {}
        with closing(self._backend.generate(self._feed(), self._budget.go_on)) as arriving:
            for position, outcomes in arriving:
                self._take(position, outcomes)
                if len(self._entered) >= _BATCH:
                    self._store.flush()
                yield from self._hand_over()
        self._budget.landed()
        self._store.flush()
        yield from self._hand_over()
        if self._sent and not self._budget.reached:
            raise RuntimeError(f"{self._backend.name} left {len(self._sent)} requests unanswered and did not say why")

    def _feed(self) -> Iterator[Request]:
        """What the backend is handed, made on the way."""
        position = 0
        while self._wave is None or position < self._wave:
            with self._lock:
                if not self._backlog:
                    self._fill()
                if not self._backlog:
                    return
                request, keys = self._backlog.popleft()
                self._sent[position] = (request, keys)
            yield request
            position += 1

    def _fill(self) -> None:
        """Take windows until there is something to ask for, enough to hand over, or nothing left to take."""
        with self._lock:
            while not self._backlog and len(self._ready) < _AHEAD:
                again = [self._elsewhere.popleft() for _ in range(min(WINDOW, len(self._elsewhere)))]
                room = WINDOW if len(self._elsewhere) < _AHEAD else 0
                fresh = [self._opened(*item) for item in islice(self._source, room)]
                self._exhausted = len(fresh) < room
                self._sort(again + fresh)
                if len(fresh) < WINDOW:
                    return

    def _opened(self, position: int, request: Request) -> _Open:
        return _Open(position, request, completion_keys(self._backend.identity(request), request))

    def _sort(self, window: Sequence[_Open]) -> None:
        wanted = list(dict.fromkeys(key for item in window for key in item.lacking))
        found: dict[str, Outcome] = dict(self._store.get(wanted)) if wanted else {}
        missing = [key for key in wanted if key not in found and key not in self._waiting]
        held: set[str] = set()
        if missing and self._budget.reached:
            self._look_up(window, found)
            return
        if missing:
            bought, held = self._store.claim(missing)
            found |= bought
        for item in window:
            self._place(item, found, held)

    def _look_up(self, window: Sequence[_Open], found: dict[str, Outcome]) -> None:
        """Once nothing more is bought, what is not stored stays unanswered."""
        for item in window:
            self._role = item.request.role
            item.known |= {key: found[key] for key in item.keys if key in found}
            if item.complete:
                self._ready.append(item)
            else:
                self._unanswered += 1

    def _place(self, item: _Open, found: dict[str, Outcome], held: set[str]) -> None:
        asks: dict[str, int] = {}
        for key, index in zip(item.keys, item.request.indices, strict=True):
            if key in item.known or key in item.asked:
                continue
            if key in found:
                item.known[key] = found[key]
            elif key in self._waiting:
                self._waiting[key].append(item)
                item.asked.add(key)
            elif key not in held:
                self._waiting[key] = [item]
                item.asked.add(key)
                asks[key] = index
        if asks:
            indices, request = tuple(asks.values()), item.request
            self._backlog.append(
                (request if indices == request.indices else replace(request, indices=indices), [*asks])
            )
        if item.complete:
            self._ready.append(item)
        elif item.lacking:
            self._elsewhere.append(item)

    def _take(self, position: int, outcomes: Sequence[Outcome]) -> None:
        """Enter one call: it brought the first of what the request still lacks, or only a failure on the way."""
        with self._lock:
            request, keys = self._sent[position]
            mine, rest = keys[: len(outcomes)], keys[len(outcomes) :]
            again = all(isinstance(outcome, Failure) and outcome.again for outcome in outcomes)
            number = self._enter(request, mine, outcomes)
            if again:
                return
            if rest:
                self._sent[position] = (replace(request, indices=request.indices[len(outcomes) :]), rest)
            else:
                del self._sent[position]
            self._entered.append((number, mine, outcomes))

    def _hand_over(self) -> Iterator[tuple[int, Request, tuple[Outcome, ...]]]:
        """What is complete and committed."""
        with self._lock:
            while self._entered and self._entered[0][0] <= self._store.committed:
                _, keys, outcomes = self._entered.popleft()
                for key, outcome in zip(keys, outcomes, strict=True):
                    self._settle(key, outcome)
        while self._ready:
            item = self._ready.popleft()
            yield item.position, item.request, tuple(item.known[key] for key in item.keys)

    def _settle(self, key: str, outcome: Outcome) -> None:
        for item in self._waiting.pop(key):
            item.known[key] = outcome
            item.asked.discard(key)
            if item.complete:
                self._ready.append(item)

    def _open(self) -> set[int]:
        """Positions of requests whose answers never came."""
        items = [item for items in self._waiting.values() for item in items]
        self._role = items[0].request.role if items else self._role
        return {item.position for item in items}
