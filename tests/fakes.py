"""A task and a model by protocol, small enough to reason about in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cope_train.records import Completion, Message, Outcome, Problem, Request, Role, Verdict

PROBLEMS = [Problem(f"p{i}", f"question {i}", str(i)) for i in range(4)]


class FakeTask:
    """Answers are what follows the last '='; equal when they are the same text."""

    name = "fake"
    answer_prefix = "="

    def ask(self, problem: Problem, role: Role, plans: dict[str, str]) -> tuple[Message, ...]:
        given = "".join(f" <{kind}: {plan}>" for kind, plan in plans.items())
        return (Message("system", role), Message("user", problem.question + given))

    def extract(self, text: str) -> str | None:
        return text.rpartition("=")[2].strip() or None if "=" in text else None

    def groups(self, answers: Sequence[str | None]) -> list[int | None]:
        order = {answer: i for i, answer in enumerate(dict.fromkeys(answers))}
        return [None if answer is None else order[answer] for answer in answers]

    def judge(self, problem: Problem, answer: str | None) -> Verdict:
        if answer is None:
            return Verdict.unparseable
        return Verdict.right if answer == problem.answer else Verdict.wrong

    def close(self) -> None:
        pass


class FakeModel:
    """Says what a function says for (request, sample index); keeps every request. Both a model and a backend."""

    def __init__(self, name: str, speak: Callable[[Request, int], Outcome | str]) -> None:
        self.name = name
        self.speak = speak
        self.asked: list[Request] = []

    def identity(self, request: Request) -> dict[str, Any]:
        return {"fake": self.name, "prompt": [message.content for message in request.messages]}

    def answer(self, request: Request) -> tuple[Outcome, ...]:
        self.asked.append(request)
        said = [self.speak(request, index) for index in request.indices]
        return tuple(Completion(text, "stop", 10, 5, seconds=0.0) if isinstance(text, str) else text for text in said)

    def complete(self, requests: Sequence[Request]) -> list[tuple[Outcome, ...]]:
        return [self.answer(request) for request in requests]

    def generate(
        self, requests: Iterable[Request], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        requests = list(requests)
        for position in reversed(range(len(requests))):
            if not go_on():
                return
            yield position, self.answer(requests[position])
