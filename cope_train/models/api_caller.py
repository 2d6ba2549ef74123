"""One request: as many calls as it takes, each with the attempts that it is worth. Every call is reported."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cope_train.errors import UserError
from cope_train.models.api_errors import Secrets, Trouble, stopped, trouble
from cope_train.models.api_limits import Limits, back_off
from cope_train.models.api_wire import Said, Wire
from cope_train.recipe.model_specs import ApiModel
from cope_train.records import Failure, Outcome, Request

_HOPELESS = 20  # requests given up in a row, from the first on, before the server is taken for broken


class Caller:
    """Sends the calls of many requests over one client, no more at a time than the limits allow.

    Lives on one event loop. `report(position, outcomes)` gets every call that was made. A call keeps its place among
    those that may be under way until `release` says that its outcomes were taken, so that whoever counts money has
    counted all that was spent before more is sent.
    """

    def __init__(
        self,
        name: str,
        spec: ApiModel,
        wire: Wire,
        secrets: Secrets,
        limits: Limits,
        go_on: Callable[[], bool],
        report: Callable[[int, tuple[Outcome, ...]], None],
    ) -> None:
        import openai

        self.refused: UserError | None = None
        self.answered = False  # the server has answered a call
        self._name, self._spec, self._wire, self._secrets = name, spec, wire, secrets
        self._limits, self._go_on, self._report = limits, go_on, report
        self._given_up = 0
        self._under_way = 0  # calls sent whose outcomes were not taken yet
        self._queued = 0  # requests that wait for their next call to be sent
        self._waiting: deque[asyncio.Future] = deque()
        self._closed = asyncio.Event()
        self._client = openai.AsyncOpenAI(
            api_key=secrets.key,
            base_url=spec.base_url,
            default_headers=secrets.headers,
            timeout=openai.Timeout(spec.timeout, connect=min(spec.timeout, 10.0), pool=None),
            max_retries=0,  # every attempt is a row of the ledger, so attempts are made here
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @property
    def closed(self) -> bool:
        """True when nothing more is sent."""
        return self._closed.is_set()

    def room(self) -> int:
        """How many more requests could be sent at once."""
        return 0 if self.closed else self._limits.now - self._under_way - self._queued

    def release(self, calls: int) -> None:
        """The outcomes of so many calls were taken."""
        self._under_way -= calls
        for _ in range(min(len(self._waiting), self._limits.now - self._under_way)):
            self._wake(self._waiting.popleft())

    async def ask(self, position: int, request: Request) -> None:
        """Make the calls of one request: again for the choices that a reply lacks, again after passing trouble."""
        skip = attempt = 0
        while skip < len(request.indices):
            if not await self._may_send():
                return
            wanted = len(request.indices) - skip
            outcome = await self._send(request, skip, wanted)
            if isinstance(outcome, Said):
                self.answered, self._given_up = True, 0
                skip, attempt = skip + len(outcome.completions), 0
                self._report(position, outcome.completions)
                continue
            again = outcome.cure in ("again", "again_or_stop") and attempt < self._spec.retries
            self._report(position, (Failure(self._secrets.hide(outcome.words), again),) * wanted)
            if not again:
                self._give_up(outcome)
                return
            await self._pause(back_off(attempt))
            attempt += 1

    async def _send(self, request: Request, skip: int, wanted: int) -> Said | Trouble:
        """One call. What it took is entered in the limits."""
        most = wanted * request.sampling.max_tokens + sum(len(message.content) for message in request.messages) // 3
        body = self._wire.call(request, skip)
        call = self._limits.sent(most)
        start = time.perf_counter()
        try:
            # The client's time-out is for each read, and a server that drips could take for ever.
            async with asyncio.timeout(self._spec.timeout):
                # Past the client's typed method, which takes a quarter of its time to copy body and reply.
                reply: Any = await self._client.post("/chat/completions", cast_to=object, body=body)
            seconds = time.perf_counter() - start
            said = self._wire.read(json.loads(reply) if isinstance(reply, str) else reply, request, wanted, seconds)
        except Exception as error:  # whatever broke is this call's failure; the others go on
            found = trouble(error, self._name, self._spec, self.answered)
            self._limits.failed(call, found.overloaded, found.pause)
            return found
        self._limits.answered(call, seconds, said.billed, said.longest, self._under_way >= self._limits.now)
        return said

    def _give_up(self, found: Trouble) -> None:
        self._given_up += found.cure != "give_up"
        never = not self.answered and (found.cure == "again_or_stop" or self._given_up >= _HOPELESS)
        if (found.cure == "stop" or never) and self.refused is None:
            words, address = (self._secrets.hide(text) for text in (found.words, str(self._client.base_url)))
            self.refused = stopped(words, found.advice, self._name, self._spec, address)
            self.shut()

    async def _may_send(self) -> bool:
        """Wait for a place; False when nothing more is to be sent."""
        self._queued += 1
        try:
            return await self._place()
        finally:
            self._queued -= 1

    async def _place(self) -> bool:
        while not self.closed:
            if self._under_way >= self._limits.now:
                place = asyncio.get_running_loop().create_future()
                self._waiting.append(place)
                await place
            elif (seconds := self._limits.wait()) > 0:
                await self._pause(seconds)
            elif self._go_on():
                self._under_way += 1
                return True
            else:
                self.shut()
        return False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            pass

    def shut(self) -> None:
        """Send nothing more."""
        self._closed.set()
        while self._waiting:
            self._wake(self._waiting.popleft())

    @staticmethod
    def _wake(place: asyncio.Future) -> None:
        if not place.done():
            place.set_result(None)
