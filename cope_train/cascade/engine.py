"""The engine: runs a strategy's stages in waves over all live decisions (paper, section 3, algorithm 1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cope_train.cascade.decided import decided, turns
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
    """A problem on its way through the stages. `plans` are carried on; `own` and `solutions` are this stage's."""

    problem: Problem
    plans: dict[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    solutions: dict[int, Completion] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    prompts: set[tuple] = field(default_factory=set)
    stages: list[StageTrace] = field(default_factory=list)
    failure: str | None = None
    open: bool = True

    def begin(self) -> None:
        """Forget what belongs to a stage that is over."""
        self.own, self.solutions, self.usage, self.prompts = (), {}, {}, set()

    def spend(self, model: str, request: Request, outcomes: Sequence[Outcome]) -> None:
        """Charge one request in full, shared or not: the stand-alone book. A stage pays once for equal prompts."""
        said = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
        tokens = [completion.completion_tokens for completion in said]
        prompt = model, request.role, request.messages
        new = prompt not in self.prompts
        self.prompts.add(prompt)
        used = Usage(
            calls=int(new),
            prompt_tokens=said[0].prompt_tokens if said and new else 0,
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
    those of the model `adapted` ("small"): active for its own role only. Models that are `patient` are asked for the
    samples of a vote in index order until it is decided, others for all at once.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        task: Task,
        sampling: Mapping[Role, RoleSampling],
        adapted: str = "small",
        patient: Collection[str] = (),
    ) -> None:
        self._models = models
        self._task = task
        self._sampling = sampling
        self._adapted = adapted
        self._patient = patient

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
            hold = full_tree and stage is not strategy.stages[-1]
            live = undecided = [decision for decision in decisions if decision.open]
            for indices in self._turns(stage, hold):
                self._write_plans(stage, undecided, indices, seed, adapters)
                undecided = [decision for decision in undecided if not decision.failure]
                self._solve(stage, undecided, indices, seed, adapters)
                undecided = [d for d in undecided if not d.failure and not self._decided(stage, d)]
            for decision in live:
                if not self._failed(decision, stage):
                    self._settle(stage, decision, hold)
        return [self._trace(decision, name or strategy.name, seed) for decision in decisions]

    def _turns(self, stage: Stage, hold: bool) -> list[tuple[int, ...]]:
        """The sample indices of a stage in the turns in which they are asked."""
        asked = {stage.executor} | ({stage.plan.planner} if stage.plan and stage.plan.each else set())
        if hold or not stage.gate or not asked <= set(self._patient):
            return [tuple(range(stage.samples))]
        return turns(stage.samples, stage.threshold, _hands_over(stage))

    def _decided(self, stage: Stage, decision: _Decision) -> bool:
        said = len(decision.solutions)
        if said == stage.samples or not stage.gate:
            return said == stage.samples
        groups = self._task.groups([self._task.extract(decision.solutions[i].text) for i in range(said)])
        return decided(groups, stage.samples, stage.threshold, _hands_over(stage))

    def _write_plans(
        self, stage: Stage, live: Sequence[_Decision], indices: tuple[int, ...], seed: int, adapters: Adapters
    ) -> None:
        plan = stage.plan
        if plan is None or (indices[0] > 0 and not plan.each):
            return
        adapter = "planner" if plan.planner == self._adapted and adapters in _PLANNER else None
        requests = [
            Request(
                problem_id=decision.problem.id,
                role=plan.kind,
                messages=self._task.ask(decision.problem, plan.kind, {}),
                sampling=self._sampling_of(plan.kind, plan.temperature),
                indices=indices if plan.each else (0,),
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
            decision.own += tuple(completion.text.strip() for completion in outcomes)
            if not plan.each:
                decision.plans[plan.kind] = decision.own[0]

    def _solve(
        self, stage: Stage, live: Sequence[_Decision], indices: tuple[int, ...], seed: int, adapters: Adapters
    ) -> None:
        adapter = "executor" if stage.executor == self._adapted and adapters in _EXECUTOR else None
        sampling = self._sampling_of("solution", stage.temperature)
        asked = [(decision, *pair) for decision in live for pair in self._prompts(stage, decision, indices)]
        requests = [
            Request(
                problem_id=decision.problem.id,
                role="solution",
                messages=messages,
                sampling=sampling,
                indices=wanted,
                seed=seed,
                adapter=adapter,
                answer_prefix=self._task.answer_prefix,
                stage=stage.name,
            )
            for decision, messages, wanted in asked
        ]
        for decision, request, outcomes in self._complete(stage.executor, [item[0] for item in asked], requests):
            decision.spend(stage.executor, request, outcomes)
            decision.solutions.update(zip(request.indices, outcomes, strict=True))

    def _prompts(self, stage: Stage, decision: _Decision, indices: tuple[int, ...]) -> list[tuple]:
        """(messages, sample indices): samples that are given the same plans share one request."""
        shared: dict[tuple, list[int]] = {}
        for index in indices:
            messages = self._task.ask(decision.problem, "solution", _given(stage, decision, index))
            shared.setdefault(messages, []).append(index)
        return [(messages, tuple(indices)) for messages, indices in shared.items()]

    def _settle(self, stage: Stage, decision: _Decision, hold: bool) -> None:
        """Vote, judge and gate; then hand the winner's plan over to the next stage.

        Samples that a decided vote did not need count as not voting for its winner: the consensus is a lower bound.
        """
        solutions = [decision.solutions[index] for index in range(len(decision.solutions))]
        answers = [self._task.extract(solution.text) for solution in solutions]
        groups = self._task.groups(answers)
        vote = majority([*groups, *[None] * (stage.samples - len(groups))])
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
        decision.begin()

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
        decision.open = False
        decision.begin()
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


def _hands_over(stage: Stage) -> bool:
    """Whether the vote also decides which plan the next stage is given."""
    return stage.plan is not None and stage.plan.each


def _given(stage: Stage, decision: _Decision, index: int) -> dict[str, str]:
    """The plans one sample is given: its own where the stage wrote one for each, else the carried one."""
    plans = dict(decision.plans)
    if stage.plan and stage.plan.each:
        plans[stage.plan.kind] = decision.own[index]
    # A planner that said nothing gave no plan.
    return {kind: plans[kind] for kind in stage.given if plans.get(kind)}
