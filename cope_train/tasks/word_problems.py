"""The lab's word problems: whole numbers, boxed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cope_train.prompts import PromptSet
from cope_train.records import Message, Problem, Role, Verdict

_BOXED = re.compile(r"\\boxed\s*\{\s*(-?\d+)\s*\}")


class WordProblems:
    """The task `word_problems`."""

    name = "word_problems"
    answer_prefix = "\\boxed{"

    def __init__(self, prompts: PromptSet) -> None:
        self._prompts = prompts

    def ask(self, problem: Problem, role: Role, plans: Mapping[str, str]) -> tuple[Message, ...]:
        """The chat for one role, with the plans that are given."""
        return self._prompts.render(role, question=problem.question, **plans)

    def extract(self, text: str) -> str | None:
        """The last boxed whole number, without leading zeros."""
        found = _BOXED.findall(text)
        return str(int(found[-1])) if found else None

    def groups(self, answers: Sequence[str | None]) -> list[int | None]:
        """Answers are one class when they are the same number."""
        order = {answer: number for number, answer in enumerate(dict.fromkeys(answers))}
        return [None if answer is None else order[answer] for answer in answers]

    def judge(self, problem: Problem, answer: str | None) -> Verdict:
        """Right when it is the gold answer's number."""
        if answer is None:
            return Verdict.unparseable
        return Verdict.right if int(answer) == int(problem.answer) else Verdict.wrong

    def close(self) -> None:
        """Nothing to let go of."""
