"""The wire format of chat completions: a request as the body of a call, and a reply as completions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from cope_train.errors import UserError
from cope_train.models.identity import completion_key
from cope_train.recipe.model_specs import ApiModel
from cope_train.records import Completion, Request

_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)


class Malformed(Exception):
    """A reply that is no answer: cut off, without choices, or from another model. Worth another attempt."""


class WrongModel(Malformed):
    """A reply from a model that was not asked."""


class Said(NamedTuple):
    """What a reply brought: its completions, all tokens billed (None: unknown), and tokens of one of its choices."""

    completions: tuple[Completion, ...]
    billed: int | None
    longest: int


class Wire:
    """How a model of the recipe is spoken to."""

    def __init__(self, name: str, spec: ApiModel) -> None:
        self._name = name
        self._spec = spec

    def served(self, request: Request) -> str:
        """The name that is asked for: the model's, or its adapter's. Raises UserError for an adapter without one."""
        if request.adapter is None:
            return self._spec.model
        if request.adapter not in self._spec.adapters:
            raise UserError(
                f"model {self._name}: no {request.adapter} adapter is served; name it in "
                f"models.{self._name}.adapters.{request.adapter} (adapters trained here run on local models)"
            )
        return self._spec.adapters[request.adapter]

    def identity(self, request: Request) -> dict[str, Any]:
        """Server, served name, messages and everything else that is sent along; of headers what the recipe says."""
        spec = self._spec
        identity: dict[str, Any] = {
            "model": self.served(request),
            "server": spec.base_url,
            "messages": _messages(request),
            "body": self._extra(request),
        }
        if spec.headers:
            identity["headers"] = spec.headers
        if spec.leave_out:
            identity["leave_out"] = sorted(set(spec.leave_out))
        if spec.max_tokens_field != "max_tokens":
            identity["max_tokens"] = spec.max_tokens_field
        return identity

    def call(self, request: Request, skip: int) -> dict[str, Any]:
        """The body of one call for all samples of a request but the first `skip`."""
        spec, sampling = self._spec, request.sampling
        body = self._extra(request)
        body |= {
            "model": self.served(request),
            "messages": _messages(request),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            spec.max_tokens_field: sampling.max_tokens,
            "n": len(request.indices) - skip,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if spec.logprobs:
            body["logprobs"] = True
        if not sampling.greedy and "seed" not in spec.leave_out:
            # A seed of the request's own, so that servers which honour it return the same samples again.
            key = completion_key(self.identity(request), request, request.indices[skip])
            body["seed"] = int(key[:8], 16) >> 1
        for field in spec.leave_out:
            body.pop(field, None)
        return body

    def read(self, reply: Any, request: Request, wanted: int, seconds: float) -> Said:
        """The completions of a reply that took `seconds`: `wanted` ones, or fewer when the server sent fewer.

        Choices beyond those wanted are dropped, but billed. Raises Malformed.
        """
        try:
            self._check_model(reply.get("model"), request)
            choices = (reply.get("choices") or [])[:wanted]
            if not choices:
                raise Malformed("the server sent no choice")
            usage = _usage(reply.get("usage") or {})
            tokens = _shares(usage.completion, [_length(choice) for choice in choices])
            # By their tokens, so that no choice thought more than it said and thought together.
            reasoning = [None] * len(choices) if usage.reasoning is None else _shares(usage.reasoning, tokens)
            each = seconds / len(choices)
            said = tuple(
                _completion(choice, usage, share, thought, each)
                for choice, share, thought in zip(choices, tokens, reasoning, strict=True)
            )
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise Malformed(f"the reply is no chat completion ({type(error).__name__}: {error})") from error
        billed = None if usage.prompt is None or usage.completion is None else usage.prompt + usage.completion
        return Said(said, billed, max(share or 0 for share in tokens))

    def _check_model(self, echoed: str | None, request: Request) -> None:
        asked = self.served(request)
        if not echoed or echoed == asked or echoed == self._spec.answers_as:
            return
        if not any(_same(echoed, name) for name in (asked, self._spec.answers_as) if name):
            raise WrongModel(f"the server answered as {echoed}, not as {asked}")

    def _extra(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = dict(self._spec.extra_body)
        if request.sampling.top_k:
            body["top_k"] = request.sampling.top_k
        if request.sampling.repetition_penalty != 1:
            body["repetition_penalty"] = request.sampling.repetition_penalty
        if self._spec.chat_template_kwargs:
            body["chat_template_kwargs"] = self._spec.chat_template_kwargs
        return body


def visible(text: str) -> str:
    """The text without the thinking that a server left at its beginning: what was thought is never the answer.

    Thinking that was cut off leaves nothing. Some templates open the block in the prompt, so that only its end is
    in the text.
    """
    if "<think>" in text:
        return _THOUGHT.sub("", text)
    return text.partition("</think>")[2].lstrip() if "</think>" in text else text


class _Usage(NamedTuple):
    prompt: int | None
    completion: int | None
    cached: int | None
    reasoning: int | None


def _usage(usage: Mapping[str, Any]) -> _Usage:
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    # Most servers count reasoning among the completion's tokens; a total that needs it on top tells the others.
    if reasoning and None not in (prompt, completion):
        apart = usage.get("total_tokens") == prompt + completion + reasoning
        completion += reasoning if apart or reasoning > completion else 0
    return _Usage(prompt, completion, cached, reasoning)


def _shares(total: int | None, lengths: Sequence[int | None]) -> list[int | None]:
    """Share out what was billed for a whole reply by the choices' lengths, or evenly where those are not known."""
    if total is None:
        return list(lengths)
    weights = lengths if None not in lengths and sum(lengths) else [1] * len(lengths)
    ends = [total * done // sum(weights) for done in accumulate(weights)]
    return [end - start for start, end in pairwise([0, *ends])]


def _completion(
    choice: Mapping[str, Any], usage: _Usage, tokens: int | None, reasoning: int | None, seconds: float
) -> Completion:
    content = _content(choice)
    text = choice["message"].get("content") or ""
    if not isinstance(text, str):
        raise TypeError("the content is no text")
    return Completion(
        text=visible(text),
        finish="length" if choice.get("finish_reason") == "length" else "stop",
        prompt_tokens=usage.prompt,
        completion_tokens=tokens,
        logprob=sum(token["logprob"] for token in content) if content else None,
        seconds=seconds,
        cached_tokens=usage.cached,
        reasoning_tokens=reasoning,
    )


def _content(choice: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    return (choice.get("logprobs") or {}).get("content")


def _length(choice: Mapping[str, Any]) -> int | None:
    content = _content(choice)
    return None if content is None else len(content)


def _same(echoed: str, asked: str) -> bool:
    """True for other spellings of a name: with a gateway's prefix, a dated snapshot, a revision or a quantisation."""
    echoed, asked = (name.lower().rstrip("/").rpartition("/")[2] for name in (echoed, asked))
    bare = re.sub(r"[-:@](latest|main)$", "", asked)
    return echoed == bare or re.fullmatch(re.escape(bare) + r"(-\d{3,}[\d-]*|[@:].*|\.gguf|-q\d.*)", echoed) is not None


def _messages(request: Request) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in request.messages]
