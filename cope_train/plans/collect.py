"""Collecting plans: a large model writes them, the executor that will use them says which are worth keeping.

Problems stream in and plans stream out. Calls come back in any order and go into the store; plans are read out of it in
the order of the problems, so that memory does not grow with them and the order is always the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import islice

from cope_train.errors import ServerError
from cope_train.models.flow import WINDOW
from cope_train.models.stored import StoredModel
from cope_train.plans.lint import lint
from cope_train.plans.planset import Plan
from cope_train.recipe.schema import Plans
from cope_train.recipe.schema import Sampling as RoleSampling
from cope_train.records import Completion, PlanKind, Problem, Request, Role, Sampling, Task, Verdict

log = logging.getLogger(__name__)
_MAX_FAILED = 0.2


class Collector:
    """Writes plans for problems and tries them on the executor."""

    def __init__(
        self,
        models: Mapping[str, StoredModel],
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

    def collect(self, problems: Iterable[Problem], seed: int) -> Iterator[Plan]:
        """All plans, kept or not, by kind and then in the order of `problems`, which is gone through several times.

        Raises ServerError when too many calls failed to go on, and BudgetReached.
        """
        self.write(problems, seed)
        self._try(problems, seed)
        yield from self._judged(problems, seed)

    def write(self, problems: Iterable[Problem], seed: int) -> None:
        """Have all plans written, into the store."""
        section = self._section
        size = len(problems) * len(section.kinds) if isinstance(problems, Sized) else None
        answers = self._models[section.planner].stream(self._writing(problems, seed), size)
        failed, asked = Counter(), Counter()
        for request, outcomes in answers:
            asked[request.role] += len(outcomes)
            failed[request.role] += sum(not isinstance(outcome, Completion) for outcome in outcomes)
        for kind in section.kinds:
            self._refuse(failed[kind], asked[kind], f"{kind}s by {section.planner}")

    def plans(self, problems: Iterable[Problem], seed: int) -> Iterator[tuple[Problem, Plan]]:
        """The plans that the store holds, before they are tried, with the problem of each."""
        twice = (problem for _ in self._section.kinds for problem in problems)
        stored = self._models[self._section.planner].read(self._writing(problems, seed))
        for problem, (request, outcomes) in zip(twice, stored, strict=True):
            for index, outcome in enumerate(outcomes):
                if isinstance(outcome, Completion):
                    yield problem, self._plan(problem, request.role, index, outcome)

    def _writing(self, problems: Iterable[Problem], seed: int) -> Iterator[Request]:
        indices = tuple(range(self._section.samples))
        for kind in self._section.kinds:
            sampling = self._role(kind, self._section.temperature)
            for p in problems:
                yield Request(p.id, kind, self._task.ask(p, kind, {}), sampling, indices, seed, stage="write")

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

    def _try(self, problems: Iterable[Problem], seed: int) -> None:
        keep = self._section.keep
        clean = ((problem, plan) for problem, plan in self.plans(problems, seed) if not plan.lint)
        failed = asked = 0
        # How many plans are clean is known once they are written; counting them reads the store once more.
        size = sum(not plan.lint for _, plan in self.plans(problems, seed))
        for _, outcomes in self._models[keep.executor].stream(self._trying(clean, seed), size):
            asked += len(outcomes)
            failed += sum(not isinstance(outcome, Completion) for outcome in outcomes)
        self._refuse(failed, asked, f"solutions by {keep.executor}")

    def _trying(self, plans: Iterable[tuple[Problem, Plan]], seed: int) -> Iterator[Request]:
        keep = self._section.keep
        sampling = self._role("solution", keep.temperature)
        for problem, plan in plans:
            yield Request(
                problem_id=plan.problem_id,
                role="solution",
                messages=self._task.ask(problem, "solution", {plan.kind: plan.plan}),
                sampling=sampling,
                indices=tuple(range(keep.samples)),
                seed=seed,
                answer_prefix=self._task.answer_prefix,
                stage="try",
            )

    def _judged(self, problems: Iterable[Problem], seed: int) -> Iterator[Plan]:
        executor = self._models[self._section.keep.executor]
        source = self.plans(problems, seed)
        while window := list(islice(source, WINDOW)):
            clean = [(problem, plan) for problem, plan in window if not plan.lint]
            answers = executor.read(self._trying(clean, seed))
            for problem, plan in window:
                yield plan if plan.lint else self._judge(plan, problem, next(answers)[1])

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
