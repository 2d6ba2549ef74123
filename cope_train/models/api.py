"""Models behind an OpenAI-compatible server: fixed concurrency, the client's own retries, nothing assumed honoured."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cope_train.models.identity import completion_key
from cope_train.recipe.schema import ApiModel
from cope_train.records import Completion, Failure, NotRunnableHere, Outcome, Request, ServerError, UserError


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

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Yield outcomes as calls return. Raises ServerError when the server refuses the key or the model."""
        arrived: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        worker = threading.Thread(target=lambda: asyncio.run(self._ask_all(requests, arrived)), daemon=True)
        worker.start()
        while (item := arrived.get()) is not None:
            if isinstance(item[1], UserError):
                raise item[1]
            yield item

    async def _ask_all(self, requests: Sequence[Request], arrived: queue.Queue) -> None:
        import openai

        spec = self._spec
        slots = asyncio.Semaphore(spec.concurrency)
        stop = asyncio.Event()
        async with openai.AsyncOpenAI(
            api_key=os.environ[spec.api_key_env], base_url=spec.base_url, timeout=spec.timeout, max_retries=spec.retries
        ) as client:

            async def one(position: int, request: Request) -> None:
                async with slots:
                    if stop.is_set():
                        return
                    try:
                        arrived.put((position, await self._ask(client, request)))
                    except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                        stop.set()
                        words = f"model {self.name}: {spec.model} at {client.base_url}: {error.message}"
                        arrived.put((position, ServerError(words.replace(os.environ[spec.api_key_env], "<key>"))))
                    except Exception as error:  # whatever broke is this request's failure; the others go on
                        failure = Failure(f"{type(error).__name__}: {error}"[:500])
                        arrived.put((position, (failure,) * len(request.indices)))

            try:
                await asyncio.gather(*(one(i, request) for i, request in enumerate(requests)))
            finally:
                arrived.put(None)

    async def _ask(self, client: Any, request: Request) -> tuple[Outcome, ...]:
        """All samples of one request; servers that ignore `n` are asked for what is missing."""
        done: list[Completion] = []
        while len(done) < len(request.indices):
            start = time.perf_counter()
            try:
                reply = await client.chat.completions.create(**self._call(request, len(done)))
            except Exception as error:
                if not done:
                    raise
                # What an earlier call brought is paid for and kept; only the rest failed.
                return (*done, *[Failure(str(error)[:500])] * (len(request.indices) - len(done)))
            choices = (reply.choices or [])[: len(request.indices) - len(done)]
            if not choices:
                return (*done, *[Failure("the server sent no choice")] * (len(request.indices) - len(done)))
            seconds = (time.perf_counter() - start) / len(choices)
            done += [self._completion(choice, reply, len(choices), seconds) for choice in choices]
        return tuple(done)

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

    def _completion(self, choice: Any, reply: Any, choices: int, seconds: float) -> Completion:
        content = choice.logprobs.content if choice.logprobs and choice.logprobs.content else None
        usage = reply.usage
        # Usage is told for the whole reply; a sample's share is exact when log-probabilities count its tokens.
        tokens = len(content) if content else None
        if tokens is None and usage is not None:
            tokens = usage.completion_tokens // choices + (choice.index < usage.completion_tokens % choices)
        return Completion(
            text=choice.message.content or "",
            finish="length" if choice.finish_reason == "length" else "stop",
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=tokens,
            logprob=sum(token.logprob for token in content) if content else None,
            seconds=seconds,
        )
