"""Collecting plans: a large model writes them, the executor that will use them says which are worth keeping."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cope_train.errors import ServerError
from cope_train.plans.lint import lint
from cope_train.plans.planset import Plan
from cope_train.recipe.schema import Plans
from cope_train.recipe.schema import Sampling as RoleSampling
from cope_train.records import Completion, Model, PlanKind, Problem, Request, Role, Sampling, Task, Verdict

log = logging.getLogger(__name__)
_MAX_FAILED = 0.2


class Collector:
    """Writes plans for problems and tries them on the executor."""

    def __init__(
        self,
        models: Mapping[str, Model],
        task: Task,
        section: Plans,
        sampling: Mapping[Role, RoleSampling],
        prompt_hashes: Mapping[str, str],
    ) -> None:
        self._models = models
        self._task = task
        self._section = section
        self._sampling = sampling
        self._hashes = prompt_hashes

    def collect(self, problems: Sequence[Problem], seed: int) -> list[Plan]:
        """All plans, kept or not. Raises ServerError when too many calls failed to go on."""
        by_id = {problem.id: problem for problem in problems}
        plans = [plan for kind in self._section.kinds for plan in self._write(problems, kind, seed)]
        clean = [plan for plan in plans if not plan.lint]
        tried = iter(self._try(clean, by_id, seed))
        return [next(tried) if not plan.lint else plan for plan in plans]

    def _write(self, problems: Sequence[Problem], kind: PlanKind, seed: int) -> list[Plan]:
        section = self._section
        sampling = self._role(kind, section.temperature)
        indices = tuple(range(section.samples))
        requests = [Request(p.id, kind, self._task.ask(p, kind, {}), sampling, indices, seed) for p in problems]
        plans, failed = [], 0
        answers = self._models[section.planner].complete(requests)
        for problem, outcomes in zip(problems, answers, strict=True):
            for index, outcome in enumerate(outcomes):
                if isinstance(outcome, Completion):
                    plans.append(self._plan(problem, kind, index, outcome))
                else:
                    failed += 1
        self._refuse(failed, len(problems) * section.samples, f"{kind}s by {section.planner}")
        return plans

    def _plan(self, problem: Problem, kind: PlanKind, index: int, written: Completion) -> Plan:
        return Plan(
            problem_id=problem.id,
            question=problem.question,
            kind=kind,
            index=index,
            plan=written.text.strip(),
            planner=self._section.planner,
            executor=self._section.keep.executor,
            samples=0,
            successes=0,
            success_rate=None,
            lint=lint(written, problem, self._section.max_characters),
            kept=False,
            prompt_tokens=written.prompt_tokens,
            completion_tokens=written.completion_tokens,
            prompt_hash=self._hashes[kind],
        )

    def _try(self, plans: Sequence[Plan], problems: Mapping[str, Problem], seed: int) -> list[Plan]:
        keep = self._section.keep
        sampling = self._role("solution", keep.temperature)
        indices = tuple(range(keep.samples))
        requests = [
            Request(
                problem_id=plan.problem_id,
                role="solution",
                messages=self._task.ask(problems[plan.problem_id], "solution", {plan.kind: plan.plan}),
                sampling=sampling,
                indices=indices,
                seed=seed,
                answer_prefix=self._task.answer_prefix,
            )
            for plan in plans
        ]
        answers = self._models[keep.executor].complete(requests)
        tried = [
            self._judge(plan, problems[plan.problem_id], outcomes)
            for plan, outcomes in zip(plans, answers, strict=True)
        ]
        failed = sum(keep.samples - plan.samples for plan in tried)
        self._refuse(failed, len(plans) * keep.samples, f"solutions by {keep.executor}")
        return tried

    def _judge(self, plan: Plan, problem: Problem, outcomes: Sequence[object]) -> Plan:
        right, judged = [], 0
        for outcome in outcomes:
            if isinstance(outcome, Completion):
                verdict = self._task.judge(problem, self._task.extract(outcome.text))
                judged += verdict is not Verdict.failure
                if verdict is Verdict.right:
                    right.append(outcome.text)
        rate = len(right) / judged if judged else None
        return replace(
            plan,
            samples=judged,
            successes=len(right),
            success_rate=rate,
            kept=rate is not None and rate >= self._section.keep.min_success,
            solutions=tuple(dict.fromkeys(right)),
        )

    def _role(self, role: Role, temperature: float) -> Sampling:
        return self._sampling.get(role, RoleSampling()).at(temperature)

    @staticmethod
    def _refuse(failed: int, total: int, what: str) -> None:
        if failed:
            log.warning("%d of %d %s could not be had", failed, total, what)
        if total and failed / total > _MAX_FAILED:
            raise ServerError(
                f"{failed} of {total} {what} could not be had; the reasons are in the run's log and ledger. "
                "What arrived is kept: the same command goes on from there"
            )
