"""The table of strategies: each is a list of stages, run by one engine (paper, section 3; baselines, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cope_train.records import PlanKind

Adapters = Literal["none", "planner", "executor", "both"]


@dataclass(frozen=True)
class Plan:
    """Who writes which plan. `each` writes one plan for each of the stage's samples; otherwise one serves all."""

    planner: str
    kind: PlanKind
    each: bool = False
    temperature: float = 0.8


@dataclass(frozen=True)
class Stage:
    """One stage: a plan (or none), an executor that is given plans, its samples, and a gate.

    `given` lists the plan kinds the executor sees: this stage's own, or those carried from earlier stages.
    A temperature of 0 is greedy. A gate accepts when the consensus is at least `threshold`.
    """

    name: str
    executor: str
    samples: int = 1
    temperature: float = 0.0
    plan: Plan | None = None
    given: tuple[PlanKind, ...] = ()
    gate: Literal["consensus"] | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Strategy:
    """Stages in order; the last one has no gate and always answers."""

    name: str
    what: str
    stages: tuple[Stage, ...]

    @property
    def models(self) -> set[str]:
        """Names of the models that take part."""
        planners = {stage.plan.planner for stage in self.stages if stage.plan}
        return planners | {stage.executor for stage in self.stages}

    @property
    def thresholds(self) -> dict[str, float]:
        """Threshold of every gated stage."""
        return {stage.name: stage.threshold for stage in self.stages if stage.gate}

    def with_thresholds(self, thresholds: dict[str, float], name: str | None = None) -> Strategy:
        """The same stages under other thresholds; a stage that is not named keeps its own."""
        stages = tuple(
            replace(stage, threshold=thresholds.get(stage.name, stage.threshold)) if stage.gate else stage
            for stage in self.stages
        )
        return replace(self, name=name or self.name, stages=stages)


def _planned(name: str, planner: str, kind: PlanKind) -> Strategy:
    whose = f"a {kind} of its own" if planner == "small" else f"the {planner} model's {kind}"
    stage = Stage("solve", "small", plan=Plan(planner, kind), given=(kind,))
    return Strategy(name, f"the small model solves once, greedily, with {whose}", (stage,))


_GOALS = Plan("small", "goal", each=True)
_GUIDELINE = Plan("large", "guideline")
_STAGE1 = Stage("stage1", "small", 8, 0.4, _GOALS, ("goal",), "consensus", 0.75)
_STAGE2 = Stage("stage2", "small", 8, 0.8, _GUIDELINE, ("goal", "guideline"), "consensus", 0.5)
_STAGE3 = Stage("stage3", "large", given=("guideline",))

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("small-single", "the small model, once, greedily", (Stage("solve", "small"),)),
        Strategy("small-majority", "majority of 8 samples of the small model", (Stage("solve", "small", 8, 0.8),)),
        _planned("small-goal", "small", "goal"),
        _planned("small-guideline", "small", "guideline"),
        _planned("small-large-goal", "large", "goal"),
        _planned("small-large-guideline", "large", "guideline"),
        Strategy("large", "the large model, once, greedily", (Stage("solve", "large"),)),
        Strategy(
            "large-plan",
            "the large model, once, greedily, with its own guideline",
            (Stage("solve", "large", plan=_GUIDELINE, given=("guideline",)),),
        ),
        Strategy(
            "cascade-no-plan",
            "majority of 8 samples of the small model, else the large model; no plans",
            (Stage("stage1", "small", 8, 0.8, gate="consensus", threshold=0.75), Stage("stage2", "large")),
        ),
        Strategy(
            "cope",
            "small plans and executes; large plans, small executes; large executes",
            (_STAGE1, _STAGE2, _STAGE3),
        ),
    )
}

# Lines that are computed from other strategies' traces, without a call of their own.
REFERENCES = {"random-escalation": "problems go to the large model by lot, at the cascade's own share"}

_ADAPTERS = ("planner", "executor", "both")


def parse(name: str) -> tuple[Strategy, Adapters] | None:
    """The strategy and adapters that `cope` or `cope@planner` names; None when there is no such strategy."""
    base, at, adapters = name.partition("@")
    if base not in STRATEGIES or (at and adapters not in _ADAPTERS):
        return None
    return STRATEGIES[base], adapters or "none"
