"""Mathematics with a short final answer: GSM8K, MATH-500, AIME and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cope_train.prompts import PromptSet
from cope_train.records import Message, Problem, Role, Verdict
from cope_train.tasks.answers import extract
from cope_train.tasks.equality import Equality


class Math:
    """The task `math`. Answers are compared as `equality.py` says."""

    name = "math"
    answer_prefix = "\\boxed{"

    def __init__(self, prompts: PromptSet, equality: Equality | None = None) -> None:
        self._prompts = prompts
        self._equality = equality or Equality()

    def ask(self, problem: Problem, role: Role, plans: Mapping[str, str]) -> tuple[Message, ...]:
        """The chat for one role, with the plans that are given."""
        return self._prompts.render(role, question=problem.question, **plans)

    def extract(self, text: str) -> str | None:
        """The final answer in a solution."""
        return extract(text)

    def groups(self, answers: Sequence[str | None]) -> list[int | None]:
        """Classes of equal answers, each known by its first; a pair that cannot be compared is not merged."""
        firsts: list[str] = []
        groups: list[int | None] = []
        for answer in answers:
            if answer is None:
                groups.append(None)
                continue
            match = next((n for n, first in enumerate(firsts) if self._equality.same(first, answer) == "equal"), None)
            if match is None:
                match = len(firsts)
                firsts.append(answer)
            groups.append(match)
        return groups

    def judge(self, problem: Problem, answer: str | None) -> Verdict:
        """Right or wrong; a comparison that broke is a failure, which is ours."""
        if answer is None:
            return Verdict.unparseable
        verdicts = {"equal": Verdict.right, "different": Verdict.wrong, "error": Verdict.failure}
        return verdicts[self._equality.same(problem.answer, answer)]

    def close(self) -> None:
        """End the process that compares answers."""
        self._equality.close()
