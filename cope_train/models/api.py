"""Models behind an OpenAI-compatible server: nothing is assumed honoured, and every call is reported.

`api_wire` knows the format, `api_limits` how much at a time, `api_errors` what is worth another attempt,
`api_caller` makes the calls of a request; here they meet the caller's thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from cope_train.models.api_caller import Caller
from cope_train.models.api_errors import Secrets
from cope_train.models.api_limits import Limits
from cope_train.models.api_wire import Wire
from cope_train.recipe.model_specs import ApiModel
from cope_train.records import Outcome, Request

_Part = tuple[int, tuple[Outcome, ...]]


class ApiBackend:
    """Sends each request as one call for all its samples, and again for choices a server left out."""

    def __init__(self, name: str, spec: ApiModel) -> None:
        """Raises NotRunnableHere when an environment variable for the key or a header is not set."""
        self.name = name
        self._spec = spec
        self._secrets = Secrets(name, spec)
        self._wire = Wire(name, spec)
        self._limits = Limits(spec.concurrency, spec.requests_per_minute, spec.tokens_per_minute)
        self._answered = False

    def identity(self, request: Request) -> dict[str, Any]:
        """Server, model name, messages and everything else that is sent along.

        Raises UserError for an adapter that the recipe gives no served name.
        """
        return self._wire.identity(request)

    def generate(self, requests: Iterable[Request], go_on: Callable[[], bool] = lambda: True) -> Iterator[_Part]:
        """Yield the outcomes of each call as it returns: a request that takes several calls comes in as many parts.

        Calls are made on a thread of their own, and `go_on` is asked there; `requests` is drawn from in this one, as
        there is room. Raises ServerError when the server refuses the key or the model or cannot be reached at all,
        after what other calls brought; what `requests` raises comes after that too.
        """
        exchange = _Exchange(lambda report: self._caller(go_on, report), most=2 * self._spec.concurrency)
        source, broken = enumerate(requests), None
        exchange.start()
        try:
            exchange.hand_over(0, [], False)
            while not (batch := exchange.take()).done:
                yield from batch.parts
                fresh: list[tuple[int, Request]] = []
                try:
                    fresh.extend(islice(source, max(batch.room, 0)))
                except Exception as error:  # first what is under way, which is paid for
                    broken, source = error, iter(())
                exchange.hand_over(len(batch.parts), fresh, last=len(fresh) < batch.room)
        finally:
            exchange.stop()
            self._answered = exchange.answered
        if error := broken or exchange.error:
            raise error

    def _caller(self, go_on: Callable[[], bool], report: Callable[[int, tuple[Outcome, ...]], None]) -> Caller:
        caller = Caller(self.name, self._spec, self._wire, self._secrets, self._limits, go_on, report)
        caller.answered = self._answered
        return caller


class _Batch(NamedTuple):
    """What the calls brought since last time, how many more requests there is room for, and whether that was all."""

    parts: list[_Part]
    room: int
    done: bool


class _Exchange:
    """An event loop on a thread, and the counter where it meets the caller's: outcomes one way, requests the other.

    They meet in turns, so that at high rates many outcomes cross at once, and a caller that is slow to take them slows
    the calls down instead of filling the memory.
    """

    def __init__(self, make: Callable[[Callable], Caller], most: int) -> None:
        """`make(report)` makes the caller, on the loop; `most` requests are open at a time."""
        self.error: BaseException | None = None
        self.answered = False
        self._make = make
        self._most = most
        self._crossing: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="api calls", daemon=True)
        self._up = threading.Event()
        self._parts: list[_Part] = []
        self._tasks: set[asyncio.Task] = set()
        self._last = False  # no more requests come
        self._wanted = False  # the other side waits for a batch
        self._planned = False

    def start(self) -> None:
        """Start the thread. Raises what hindered it."""
        self._thread.start()
        self._up.wait()
        if self.error:
            raise self.error

    def take(self) -> _Batch:
        """Wait for something to have come."""
        return self._crossing.get()

    def hand_over(self, taken: int, fresh: list[tuple[int, Request]], last: bool) -> None:
        """Say that so many parts were taken, and give new requests; `last`: there are no more."""
        self._loop.call_soon_threadsafe(self._turn, taken, fresh, last)

    def stop(self) -> None:
        """End the thread; calls that are still under way are dropped."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _run(self) -> None:
        try:
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            self._caller = self._make(self._report)
        except BaseException as error:
            self.error = error
            return
        finally:
            self._up.set()
        try:
            await self._end.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.answered = self._caller.answered
            await self._caller.close()

    def _turn(self, taken: int, fresh: list[tuple[int, Request]], last: bool) -> None:
        self._caller.release(taken)
        self._last = self._last or last
        for position, request in fresh:
            task = self._loop.create_task(self._caller.ask(position, request))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        self._wanted = True
        self._plan()  # after the new tasks had their first turn: then they count

    def _report(self, position: int, outcomes: tuple[Outcome, ...]) -> None:
        self._parts.append((position, outcomes))
        self._plan()

    def _ended(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.error = self.error or task.exception()
            self._caller.shut()
        self._plan()

    def _plan(self) -> None:
        if self._wanted and not self._planned:
            self._planned = True
            self._loop.call_soon(self._cross)

    def _cross(self) -> None:
        self._planned = False
        room = 0 if self._last else min(self._caller.room(), self._most - len(self._tasks))
        done = not self._tasks and not self._parts and (self._last or self._caller.closed)
        if self._parts or done or room > 0:
            self._wanted = False
            parts, self._parts = self._parts, []
            self.error = self.error or self._caller.refused
            self._crossing.put(_Batch(parts, room, done))
