"""Models behind an OpenAI-compatible server: fixed concurrency, the client's own retries, nothing assumed honoured."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from typing import Any

from cope_train.errors import NotRunnableHere, ServerError, UserError
from cope_train.models.identity import completion_key
from cope_train.recipe.model_specs import ApiModel
from cope_train.records import Completion, Failure, Outcome, Request


class ApiBackend:
    """Sends each request as one call for all its samples, and again for choices a server left out."""

    def __init__(self, name: str, spec: ApiModel) -> None:
        """Raises NotRunnableHere when the key's environment variable is not set."""
        self.name = name
        self._spec = spec
        if not os.environ.get(spec.api_key_env):
            raise NotRunnableHere(
                f"model {name}: no key for {spec.model}; set the environment variable {spec.api_key_env} "
                "(any word for a server that wants none)"
            )

    def identity(self, request: Request) -> dict[str, Any]:
        """Server, model name, messages and everything else that is sent along."""
        if request.adapter:
            raise UserError(f"model {self.name}: adapters are trained and evaluated on local models")
        spec = self._spec
        return {
            "model": spec.model,
            "server": spec.base_url,
            "messages": [asdict(message) for message in request.messages],
            "body": self._body(request),
        }

    def generate(
        self, requests: Iterable[Request], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Yield the outcomes of each call as it returns: a request that takes several calls comes in as many parts.

        Raises ServerError when the server refuses the key or the model, after what other calls brought.
        """
        requests = list(requests)
        arrived: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        worker = threading.Thread(target=lambda: asyncio.run(self._ask_all(requests, arrived)), daemon=True)
        worker.start()
        refused: UserError | None = None
        while (item := arrived.get()) is not None:
            if isinstance(item[1], UserError):
                refused = refused or item[1]
            else:
                yield item
        if refused:
            raise refused

    async def _ask_all(self, requests: Sequence[Request], arrived: queue.Queue) -> None:
        import openai

        spec = self._spec
        slots = asyncio.Semaphore(spec.concurrency)
        stop = asyncio.Event()
        async with openai.AsyncOpenAI(
            api_key=os.environ[spec.api_key_env], base_url=spec.base_url, timeout=spec.timeout, max_retries=spec.retries
        ) as client:

            async def one(position: int, request: Request) -> None:
                left = len(request.indices)
                async with slots:
                    try:
                        while left and not stop.is_set():
                            outcomes = await self._ask(client, request, len(request.indices) - left)
                            left -= len(outcomes)
                            arrived.put((position, outcomes))
                    except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                        stop.set()
                        words = f"model {self.name}: {spec.model} at {client.base_url}: {error.message}"
                        arrived.put((position, ServerError(words.replace(os.environ[spec.api_key_env], "<key>"))))
                    except Exception as error:  # whatever broke is this request's failure; the others go on
                        failure = Failure(f"{type(error).__name__}: {error}"[:500])
                        arrived.put((position, (failure,) * left))

            try:
                await asyncio.gather(*(one(i, request) for i, request in enumerate(requests)))
            finally:
                arrived.put(None)

    async def _ask(self, client: Any, request: Request, skip: int) -> tuple[Outcome, ...]:
        """One call for all samples but the first `skip`; a server that ignores `n` answers only some of them."""
        start = time.perf_counter()
        reply = await client.chat.completions.create(**self._call(request, skip))
        wanted = len(request.indices) - skip
        choices = (reply.choices or [])[:wanted]
        if not choices:
            return (Failure("the server sent no choice"),) * wanted
        seconds = (time.perf_counter() - start) / len(choices)
        prompt = reply.usage.prompt_tokens if reply.usage else None
        tokens = _completion_tokens(choices, reply.usage)
        return tuple(_completion(*pair, prompt, seconds) for pair in zip(choices, tokens, strict=True))

    def _call(self, request: Request, skip: int) -> dict[str, Any]:
        sampling = request.sampling
        call: dict[str, Any] = {
            "model": self._spec.model,
            "messages": [asdict(message) for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": len(request.indices) - skip,
            "extra_body": self._body(request),
        }
        if sampling.stop:
            call["stop"] = list(sampling.stop)
        if self._spec.logprobs:
            call["logprobs"] = True
        if not sampling.greedy:
            # A seed of the request's own, so that servers which honour it return the same samples again.
            key = completion_key(self.identity(request), request, request.indices[skip])
            call["seed"] = int(key[:8], 16) >> 1
        return call

    def _body(self, request: Request) -> Mapping[str, Any]:
        body: dict[str, Any] = dict(self._spec.extra_body)
        if request.sampling.top_k:
            body["top_k"] = request.sampling.top_k
        if request.sampling.repetition_penalty != 1:
            body["repetition_penalty"] = request.sampling.repetition_penalty
        if self._spec.chat_template_kwargs:
            body["chat_template_kwargs"] = self._spec.chat_template_kwargs
        return body


def _content(choice: Any) -> list[Any] | None:
    return choice.logprobs.content if choice.logprobs else None


def _completion_tokens(choices: Sequence[Any], usage: Any) -> list[int | None]:
    """Tokens of each choice. What is billed is the usage of the whole reply; log-probabilities only say who has it."""
    lengths = [None if _content(choice) is None else len(_content(choice)) for choice in choices]
    total = usage.completion_tokens if usage else None
    if total is None:
        return lengths
    weights = lengths if None not in lengths and sum(lengths) else [1] * len(choices)
    ends = [total * done // sum(weights) for done in accumulate(weights)]
    return [end - start for start, end in pairwise([0, *ends])]


def _completion(choice: Any, tokens: int | None, prompt: int | None, seconds: float) -> Completion:
    content = _content(choice)
    return Completion(
        text=choice.message.content or "",
        finish="length" if choice.finish_reason == "length" else "stop",
        prompt_tokens=prompt,
        completion_tokens=tokens,
        logprob=sum(token.logprob for token in content) if content else None,
        seconds=seconds,
    )
