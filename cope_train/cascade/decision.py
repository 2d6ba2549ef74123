"""One problem on its way through the stages of a strategy: what it carries, and what a stage costs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cope_train.records import Completion, Failure, Outcome, Problem, Request, StageTrace, Usage


@dataclass
class Decision:
    """A problem on its way. `plans` are carried on; `own` (plans), `solutions` and `charges` are the stage's."""

    problem: Problem
    plans: dict[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    solutions: dict[int, Completion] = field(default_factory=dict)
    charges: list[tuple[str, Request, Sequence[Outcome]]] = field(default_factory=list)
    stages: list[StageTrace] = field(default_factory=list)
    failure: str | None = None
    open: bool = True

    def begin(self) -> None:
        """Forget what belongs to a stage that is over."""
        self.own, self.solutions, self.charges = (), {}, []

    def spend(self, model: str, request: Request, outcomes: Sequence[Outcome]) -> None:
        """Note what one request brought."""
        self.charges.append((model, request, outcomes))
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self.failure = self.failure or f"{request.role} by {model}: {outcome.message}"

    def usage(self, samples: int) -> dict[str, Usage]:
        """What the first so many samples of the stage use, shared or not: the stand-alone book.

        Equal prompts are paid for once, in however many turns their samples were asked.
        """
        found: dict[str, Usage] = {}
        seen: set[tuple] = set()
        for model, request, outcomes in self.charges:
            wanted = [outcome for index, outcome in zip(request.indices, outcomes, strict=True) if index < samples]
            if wanted:
                new = (model, request.role, request.messages) not in seen
                seen.add((model, request.role, request.messages))
                found[model] = found.get(model, Usage()) + _used(wanted, new)
        return found


def _used(outcomes: Sequence[Outcome], new: bool) -> Usage:
    """Tokens of some samples, and of their prompt where it is `new`."""
    said = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
    tokens = [completion.completion_tokens for completion in said]
    return Usage(
        calls=int(new),
        prompt_tokens=said[0].prompt_tokens if said and new else 0,
        completion_tokens=None if None in tokens else sum(tokens),
        seconds=sum(completion.seconds or 0.0 for completion in said),
    )
