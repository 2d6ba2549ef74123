"""The engine: runs a strategy's stages in waves over all live decisions (paper, section 3, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cope_train.cascade.vote import accepts, majority
from cope_train.recipe.schema import Sampling as RoleSampling
from cope_train.recipe.strategies import Adapters, Stage, Strategy
from cope_train.records import (
    Completion,
    Failure,
    Model,
    Outcome,
    Problem,
    Request,
    Role,
    Sample,
    Sampling,
    StageTrace,
    Task,
    Trace,
    Usage,
    Verdict,
)

_PLANNER = ("planner", "both")
_EXECUTOR = ("executor", "both")


@dataclass
class _Decision:
    """A problem on its way through the stages. `plans` are carried on; `own` are this stage's, one a sample."""

    problem: Problem
    plans: dict[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    usage: dict[str, Usage] = field(default_factory=dict)
    stages: list[StageTrace] = field(default_factory=list)
    failure: str | None = None
    open: bool = True

    def spend(self, model: str, request: Request, outcomes: Sequence[Outcome]) -> None:
        """Charge one request in full, shared or not: the stand-alone book."""
        said = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
        tokens = [completion.completion_tokens for completion in said]
        used = Usage(
            calls=1,
            prompt_tokens=said[0].prompt_tokens if said else 0,
            completion_tokens=None if None in tokens else sum(tokens),
            seconds=sum(completion.seconds or 0.0 for completion in said),
        )
        self.usage[model] = self.usage.get(model, Usage()) + used
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self.failure = self.failure or f"{request.role} by {model}: {outcome.message}"


class Engine:
    """Runs strategies with given models and task.

    `sampling` holds each role's sampling, less the temperatures, which belong to the strategy. The adapters are
    those of the model `adapted` ("small"): active for its own role only.
    """

    def __init__(
        self, models: Mapping[str, Model], task: Task, sampling: Mapping[Role, RoleSampling], adapted: str = "small"
    ) -> None:
        self._models = models
        self._task = task
        self._sampling = sampling
        self._adapted = adapted

    def run(
        self,
        strategy: Strategy,
        problems: Sequence[Problem],
        seed: int,
        adapters: Adapters = "none",
        name: str | None = None,
        full_tree: bool = False,
    ) -> list[Trace]:
        """One trace per problem, in their order.

        `full_tree` runs every stage for every problem and accepts only at the last, so that thresholds can be
        replayed later. A decision for which any sample could not be had is a failure, and stops there.
        """
        decisions = [_Decision(problem) for problem in problems]
        for stage in strategy.stages:
            live = [decision for decision in decisions if decision.open]
            if stage.plan:
                self._write_plans(stage, live, seed, adapters)
            live = [decision for decision in live if not self._failed(decision, stage)]
            self._solve(stage, live, seed, adapters, full_tree and stage is not strategy.stages[-1])
        return [self._trace(decision, name or strategy.name, seed) for decision in decisions]

    def _write_plans(self, stage: Stage, live: Sequence[_Decision], seed: int, adapters: Adapters) -> None:
        plan = stage.plan
        indices = tuple(range(stage.samples)) if plan.each else (0,)
        adapter = "planner" if plan.planner == self._adapted and adapters in _PLANNER else None
        requests = [
            Request(
                problem_id=decision.problem.id,
                role=plan.kind,
                messages=self._task.ask(decision.problem, plan.kind, {}),
                sampling=self._sampling_of(plan.kind, plan.temperature),
                indices=indices,
                seed=seed,
                adapter=adapter,
                stage=stage.name,
            )
            for decision in live
        ]
        for decision, request, outcomes in self._complete(plan.planner, live, requests):
            decision.spend(plan.planner, request, outcomes)
            if decision.failure:
                continue
            decision.own = tuple(completion.text.strip() for completion in outcomes)
            if not plan.each:
                decision.plans[plan.kind] = decision.own[0]

    def _solve(self, stage: Stage, live: Sequence[_Decision], seed: int, adapters: Adapters, hold: bool) -> None:
        adapter = "executor" if stage.executor == self._adapted and adapters in _EXECUTOR else None
        sampling = self._sampling_of("solution", stage.temperature)
        asked = [(decision, *pair) for decision in live for pair in self._prompts(stage, decision)]
        requests = [
            Request(
                problem_id=decision.problem.id,
                role="solution",
                messages=messages,
                sampling=sampling,
                indices=indices,
                seed=seed,
                adapter=adapter,
                answer_prefix=self._task.answer_prefix,
                stage=stage.name,
            )
            for decision, messages, indices in asked
        ]
        solutions: dict[int, dict[int, Outcome]] = {}
        for decision, request, outcomes in self._complete(stage.executor, [item[0] for item in asked], requests):
            decision.spend(stage.executor, request, outcomes)
            solutions.setdefault(id(decision), {}).update(zip(request.indices, outcomes, strict=True))
        for decision in live:
            if not self._failed(decision, stage):
                self._settle(stage, decision, [solutions[id(decision)][i] for i in range(stage.samples)], hold)

    def _prompts(self, stage: Stage, decision: _Decision) -> list[tuple]:
        """(messages, sample indices): samples that are given the same plans share one request."""
        shared: dict[tuple, list[int]] = {}
        for index in range(stage.samples):
            messages = self._task.ask(decision.problem, "solution", _given(stage, decision, index))
            shared.setdefault(messages, []).append(index)
        return [(messages, tuple(indices)) for messages, indices in shared.items()]

    def _settle(self, stage: Stage, decision: _Decision, solutions: Sequence[Completion], hold: bool) -> None:
        """Vote, judge and gate; then hand the winner's plan over to the next stage."""
        answers = [self._task.extract(solution.text) for solution in solutions]
        groups = self._task.groups(answers)
        vote = majority(groups)
        answer = None if vote.winner is None else answers[vote.winner]
        trace = StageTrace(
            stage=stage.name,
            samples=tuple(
                Sample(
                    index=i,
                    text=solution.text,
                    answer=answers[i],
                    group=groups[i],
                    plans=_given(stage, decision, i),
                    finish=solution.finish,
                    completion_tokens=solution.completion_tokens,
                    logprob=solution.logprob,
                    margin=solution.margin,
                )
                for i, solution in enumerate(solutions)
            ),
            answer=answer,
            consensus=vote.consensus if stage.gate else None,
            threshold=stage.threshold,
            accepted=not hold and (not stage.gate or accepts(vote.consensus, stage.threshold)),
            verdict=Verdict.unparseable if answer is None else self._task.judge(decision.problem, answer),
            plans=decision.own,
            plan_kind=stage.plan.kind if stage.plan else None,
            usage=decision.usage,
        )
        decision.stages.append(trace)
        decision.open = not trace.accepted
        if stage.plan and stage.plan.each:
            # For exchangeable samples the lowest-index voter is the paper's random draw among the winners.
            decision.plans[stage.plan.kind] = decision.own[vote.winner or 0]
        decision.own, decision.usage = (), {}

    def _failed(self, decision: _Decision, stage: Stage) -> bool:
        if decision.failure is None:
            return False
        decision.stages.append(
            StageTrace(
                stage=stage.name,
                samples=(),
                answer=None,
                consensus=None,
                threshold=stage.threshold,
                accepted=False,
                verdict=Verdict.failure,
                usage=decision.usage,
                failure=decision.failure,
            )
        )
        decision.open, decision.usage = False, {}
        return True

    def _complete(self, model: str, decisions: Sequence[_Decision], requests: Sequence[Request]):
        return zip(decisions, requests, self._models[model].complete(requests), strict=True) if requests else ()

    def _sampling_of(self, role: Role, temperature: float) -> Sampling:
        return self._sampling.get(role, RoleSampling()).at(temperature)

    @staticmethod
    def _trace(decision: _Decision, name: str, seed: int) -> Trace:
        last = decision.stages[-1]
        return Trace(
            name, seed, decision.problem.id, tuple(decision.stages), last.answer, last.verdict, decision.failure
        )


def _given(stage: Stage, decision: _Decision, index: int) -> dict[str, str]:
    """The plans one sample is given: its own where the stage wrote one for each, else the carried one."""
    plans = dict(decision.plans)
    if stage.plan and stage.plan.each:
        plans[stage.plan.kind] = decision.own[index]
    # A planner that said nothing gave no plan.
    return {kind: plans[kind] for kind in stage.given if plans.get(kind)}
