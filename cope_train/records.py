"""What flows through the house: frozen records, and the protocols that rooms know each other by.

The terms are those of the field; `docs/architecture.md` lists them. This module imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, Literal, Protocol, TypeVar

from pydantic import TypeAdapter

Role = Literal["goal", "guideline", "solution"]
PlanKind = Literal["goal", "guideline"]
Finish = Literal["stop", "length"]
Record = TypeVar("Record")


class Verdict(StrEnum):
    """Outcome of one answer. Unparseable counts as wrong; a failure is ours and never the model's."""

    right = "right"
    wrong = "wrong"
    unparseable = "unparseable"
    failure = "failure"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a split. `answer` is the gold answer; `meta` holds what only the task understands."""

    id: str
    question: str
    answer: str | None = None
    level: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """The full set of sampling parameters, always sent whole so that no model's defaults leak in.

    `temperature` 0 means greedy; `top_k` 0 and `top_p` 1 mean off.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        """True when the request has exactly one answer."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One call: a prompt, and the sample indices wanted for it (a prompt shared by n samples is one call).

    `answer_prefix` tells a backend where the answer starts in the text, so that it can record the top-2 margin
    there; `stage` tells the ledger who asks. Neither is part of a completion's identity.
    """

    problem_id: str
    role: Role
    messages: tuple[Message, ...]
    sampling: Sampling
    indices: tuple[int, ...] = (0,)
    seed: int = 0
    adapter: str | None = None
    answer_prefix: str | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model returned for one sample index of a request.

    `prompt_tokens` is the length of the request's prompt (billed once per call), `cached_tokens` those of it that the
    server had in its cache, `reasoning_tokens` those of `completion_tokens` that were thought and not shown, `logprob`
    the sum of the untempered log-probabilities of the completion's tokens, `margin` the difference between the two
    largest probabilities at the first answer token, `seconds` this sample's share of the wall time. None: not known.
    """

    text: str
    finish: Finish
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprob: float | None = None
    margin: float | None = None
    seconds: float | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that could not be had (transport, time-out). Never a completion, never stored as one.

    `again`: only this call failed, and the sample is being asked for once more: a row of the ledger, no outcome.
    """

    message: str
    again: bool = False


Outcome = Completion | Failure


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model inside one stage, at its stand-alone extent. None: the backend does not tell."""

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        def plus(a: int | None, b: int | None) -> int | None:
            return None if a is None or b is None else a + b

        return Usage(
            self.calls + other.calls,
            plus(self.prompt_tokens, other.prompt_tokens),
            plus(self.completion_tokens, other.completion_tokens),
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One solution in a stage. `group` is its class of equal answers (None: it casts no vote)."""

    index: int
    text: str
    answer: str | None
    group: int | None
    plans: Mapping[str, str] = field(default_factory=dict)
    finish: Finish = "stop"
    completion_tokens: int | None = None
    logprob: float | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class StageTrace:
    """One stage of one decision: plans written here, samples, the vote, and whether the gate accepted.

    A vote that was decided early has fewer samples than the stage's n; `consensus`, the winner's share of n, is then a
    lower bound.
    `verdict` judges this stage's answer whether or not it was accepted, so that thresholds replay without a call.
    `usage` maps a model's name in the recipe to what this stage alone spends on it.
    """

    stage: str
    samples: tuple[Sample, ...]
    answer: str | None
    consensus: float | None
    threshold: float | None
    accepted: bool
    verdict: Verdict
    plans: tuple[str, ...] = ()
    plan_kind: str | None = None
    usage: Mapping[str, Usage] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything one strategy did for one decision. The last accepted stage gives answer and verdict."""

    strategy: str
    seed: int
    problem_id: str
    stages: tuple[StageTrace, ...]
    answer: str | None
    verdict: Verdict
    failure: str | None = None


class Model(Protocol):
    """Anything that answers requests. Adapters are named by role ("planner", "executor") in each request."""

    name: str

    def complete(self, requests: Sequence[Request]) -> list[tuple[Outcome, ...]]:
        """Answers in the order of `requests`, one outcome for each of a request's sample indices."""
        ...


class Backend(Protocol):
    """What stands behind a `Model`: it generates, and knows nothing of store, ledger or budget."""

    name: str

    def identity(self, request: Request) -> Mapping[str, Any]:
        """Everything about model, adapter and rendered prompt that decides what a completion can be (JSON)."""
        ...

    def generate(
        self, requests: Iterable[Request], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Yield (position in `requests`, outcomes) as they finish, in any order.

        Requests are taken as they are needed, so that they may be made on the way. A request that takes several calls
        comes in as many parts, in the order of its indices: each part is a row of the ledger. A part of failures that
        are asked for `again` settles no index. `go_on` is asked before every call; once it says no, nothing more is
        sent, what is under way is still yielded, and requests may stay unanswered.
        """
        ...


class Task(Protocol):
    """A family of problems: how they are asked, how an answer is read, compared and judged."""

    name: str
    answer_prefix: str | None

    def ask(self, problem: Problem, role: Role, plans: Mapping[str, str]) -> tuple[Message, ...]:
        """The chat for one role; `plans` maps a plan kind to the plan's text."""
        ...

    def extract(self, text: str) -> str | None:
        """The answer in a solution, or None when there is none."""
        ...

    def groups(self, answers: Sequence[str | None]) -> list[int | None]:
        """Class number of each answer: equal answers share one, None casts no vote."""
        ...

    def judge(self, problem: Problem, answer: str | None) -> Verdict:
        """Hold an answer against the gold answer."""
        ...

    def close(self) -> None:
        """Release worker processes, if any."""
        ...


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def to_json(record: object) -> str:
    """One line of JSON for a record."""
    return _adapter(type(record)).dump_json(record).decode()


def from_json(kind: type[Record], text: str | bytes) -> Record:
    """The record a line of JSON holds. Raises `pydantic.ValidationError` when it does not fit `kind`."""
    return _adapter(kind).validate_json(text)
