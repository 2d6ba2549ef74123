"""The engine: runs a strategy's stages in waves over all live decisions (paper, section 3, algorithm 1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cope_train.cascade.decided import decided, earliest
from cope_train.cascade.decision import Decision
from cope_train.cascade.vote import accepts, majority
from cope_train.recipe.schema import Sampling as RoleSampling
from cope_train.recipe.strategies import Adapters, Stage, Strategy
from cope_train.records import (
    Model,
    Problem,
    Request,
    Role,
    Sample,
    Sampling,
    StageTrace,
    Task,
    Trace,
    Verdict,
)

_PLANNER = ("planner", "both")
_EXECUTOR = ("executor", "both")
_FEW = 32  # problems whose next samples are asked all at once: one wave costs less than many small ones


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
        decisions = [Decision(problem) for problem in problems]
        for stage in strategy.stages:
            hold = full_tree and stage is not strategy.stages[-1]
            live = undecided = [decision for decision in decisions if decision.open]
            asked = 0
            while undecided and asked < stage.samples:
                indices = self._turn(stage, asked, len(undecided), hold)
                asked = indices.stop
                self._write_plans(stage, undecided, tuple(indices), seed, adapters)
                undecided = [decision for decision in undecided if not decision.failure]
                self._solve(stage, undecided, tuple(indices), seed, adapters)
                undecided = [decision for decision in undecided if not decision.failure]
                if asked < stage.samples:
                    undecided = [d for d in undecided if not decided(self._votes(d)[1], *_gate(stage))]
            for decision in live:
                if not self._failed(decision, stage):
                    self._settle(stage, decision, hold)
        return [self._trace(decision, name or strategy.name, seed) for decision in decisions]

    def _turn(self, stage: Stage, asked: int, problems: int, hold: bool) -> range:
        """The sample indices that are asked next: all, or as few as may decide while there are problems enough."""
        if not self._stops(stage, hold) or (asked and problems < _FEW):
            return range(asked, stage.samples)
        return range(asked, asked + 1) if asked else range(earliest(*_gate(stage)))

    def _stops(self, stage: Stage, hold: bool) -> bool:
        """Whether a decided vote of this stage ends it."""
        asked = {stage.executor} | ({stage.plan.planner} if stage.plan and stage.plan.each else set())
        return not hold and stage.gate is not None and asked <= set(self._patient)

    def _votes(self, decision: Decision) -> tuple[list[str | None], list[int | None]]:
        """Answers so far, in index order, and their classes."""
        answers = [self._task.extract(decision.solutions[index].text) for index in range(len(decision.solutions))]
        return answers, self._task.groups(answers)

    def _needed(self, stage: Stage, groups: Sequence[int | None], hold: bool) -> int:
        """How many votes, in index order, decide the stage."""
        counts = range(1, len(groups)) if self._stops(stage, hold) else ()
        return next((count for count in counts if decided(groups[:count], *_gate(stage))), len(groups))

    def _write_plans(
        self, stage: Stage, live: Sequence[Decision], indices: tuple[int, ...], seed: int, adapters: Adapters
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
        self, stage: Stage, live: Sequence[Decision], indices: tuple[int, ...], seed: int, adapters: Adapters
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

    def _prompts(self, stage: Stage, decision: Decision, indices: tuple[int, ...]) -> list[tuple]:
        """(messages, sample indices): samples that are given the same plans share one request."""
        shared: dict[tuple, list[int]] = {}
        for index in indices:
            messages = self._task.ask(decision.problem, "solution", _given(stage, decision, index))
            shared.setdefault(messages, []).append(index)
        return [(messages, tuple(indices)) for messages, indices in shared.items()]

    def _settle(self, stage: Stage, decision: Decision, hold: bool) -> None:
        """Vote, judge and gate; then hand the winner's plan over to the next stage.

        Samples that a decided vote did not need are as if never asked, so that traces do not depend on the turns; they
        count as not voting for the winner, so the consensus is a lower bound.
        """
        answers, groups = self._votes(decision)
        needed = self._needed(stage, groups, hold)
        vote = majority([*groups[:needed], *[None] * (stage.samples - needed)])
        answer = None if vote.winner is None else answers[vote.winner]
        if stage.plan and stage.plan.each:
            decision.own = decision.own[:needed]
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
                for i, solution in ((i, decision.solutions[i]) for i in range(needed))
            ),
            answer=answer,
            consensus=vote.consensus if stage.gate else None,
            threshold=stage.threshold,
            accepted=not hold and (not stage.gate or accepts(vote.consensus, stage.threshold)),
            verdict=Verdict.unparseable if answer is None else self._task.judge(decision.problem, answer),
            plans=decision.own,
            plan_kind=stage.plan.kind if stage.plan else None,
            usage=decision.usage(needed),
        )
        decision.stages.append(trace)
        decision.open = not trace.accepted
        if stage.plan and stage.plan.each:
            # For exchangeable samples the lowest-index voter is the paper's random draw among the winners.
            decision.plans[stage.plan.kind] = decision.own[vote.winner or 0]
        decision.begin()

    def _failed(self, decision: Decision, stage: Stage) -> bool:
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
                usage=decision.usage(stage.samples),
                failure=decision.failure,
            )
        )
        decision.open = False
        decision.begin()
        return True

    def _complete(self, model: str, decisions: Sequence[Decision], requests: Sequence[Request]):
        return zip(decisions, requests, self._models[model].complete(requests), strict=True) if requests else ()

    def _sampling_of(self, role: Role, temperature: float) -> Sampling:
        return self._sampling.get(role, RoleSampling()).at(temperature)

    @staticmethod
    def _trace(decision: Decision, name: str, seed: int) -> Trace:
        last = decision.stages[-1]
        return Trace(
            name, seed, decision.problem.id, tuple(decision.stages), last.answer, last.verdict, decision.failure
        )


def _gate(stage: Stage) -> tuple[int, float, bool]:
    """Samples, threshold, and whether the vote also decides which plan is handed over."""
    return stage.samples, stage.threshold, stage.plan is not None and stage.plan.each


def _given(stage: Stage, decision: Decision, index: int) -> dict[str, str]:
    """The plans one sample is given: its own where the stage wrote one for each, else the carried one."""
    plans = dict(decision.plans)
    if stage.plan and stage.plan.each:
        plans[stage.plan.kind] = decision.own[index]
    # A planner that said nothing gave no plan.
    return {kind: plans[kind] for kind in stage.given if plans.get(kind)}
