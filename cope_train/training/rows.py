"""Training rows from a plan set: what a role is asked, and what it should have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cope_train.plans.planset import Plan
from cope_train.records import Message, PlanKind, Problem, Task


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and its wanted completion."""

    prompt: tuple[Message, ...]
    completion: str


def planner_rows(
    plans: Sequence[Plan], problems: Mapping[str, Problem], task: Task, kinds: Sequence[PlanKind]
) -> list[Row]:
    """Every kept plan as an answer to the prompt of its kind; equal rows once."""
    rows = [
        Row(task.ask(problems[plan.problem_id], plan.kind, {}), plan.plan)
        for plan in plans
        if plan.kept and plan.kind in kinds
    ]
    return list(dict.fromkeys(rows))


def executor_rows(
    plans: Sequence[Plan], problems: Mapping[str, Problem], task: Task, kinds: Sequence[PlanKind]
) -> list[Row]:
    """The executor's own right solutions under kept plans (rejection sampling); equal rows once."""
    rows = [
        Row(task.ask(problems[plan.problem_id], "solution", {plan.kind: plan.plan}), solution)
        for plan in plans
        if plan.kept and plan.kind in kinds
        for solution in plan.solutions
    ]
    return list(dict.fromkeys(rows))
