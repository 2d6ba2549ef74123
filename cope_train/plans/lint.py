"""What is wrong with a plan before anyone has tried it: rules that need no model."""

from __future__ import annotations

import re

from cope_train.records import Completion, Problem

RULES = {
    "empty": "the planner said nothing",
    "cut": "the plan was cut by max_tokens",
    "too long": "longer than plans.max_characters: a solution, not a plan",
    "boxed": "holds a boxed answer",
    "answer inside": "holds the gold answer, which the question does not",
}
_BOXED = re.compile(r"\\f?boxed\b")


def lint(completion: Completion, problem: Problem, max_characters: int) -> tuple[str, ...]:
    """Names of the `RULES` that a plan breaks; empty for a clean plan."""
    plan = completion.text.strip()
    broken = {
        "empty": not plan,
        "cut": completion.finish == "length",
        "too long": len(plan) > max_characters,
        "boxed": bool(_BOXED.search(plan)),
        "answer inside": _leaks(plan, problem),
    }
    return tuple(rule for rule, is_broken in broken.items() if is_broken)


def _leaks(plan: str, problem: Problem) -> bool:
    # A number that the question gives may stand in a plan, even when it happens to be the answer too.
    if not problem.answer:
        return False
    answer = re.compile(rf"(?<![\w.]){re.escape(problem.answer.strip())}(?![\w]|\.\d)")
    return bool(answer.search(plan)) and not answer.search(problem.question)
