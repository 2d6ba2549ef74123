"""Thresholds replayed over a recorded full tree, without a call, and fitted on the calibration split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from cope_train.errors import ServerError
from cope_train.evaluation.cost import Prices, of_trace
from cope_train.records import Trace, Verdict

NEVER = 1.01  # above any consensus: the stage never accepts
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Fitted:
    """Thresholds chosen on a calibration split, and every other choice (`sweep`: thresholds, accuracy, cost)."""

    thresholds: dict[str, float]
    accuracy: float
    large_accuracy: float
    cost: float
    unit: str
    problems: int
    rule: str
    sweep: list[dict[str, object]]


def replay(full: Trace, thresholds: Mapping[str, float], name: str | None = None) -> Trace:
    """The trace that a run with these thresholds leaves: cut at the first gated stage that accepts.

    A gate that is not named keeps the full tree's threshold; a stage without a gate has none.
    """
    stages = []
    for stage in full.stages:
        threshold = None if stage.threshold is None else thresholds.get(stage.stage, stage.threshold)
        last = stage is full.stages[-1] and stage.failure is None
        accepted = last or (stage.consensus is not None and stage.consensus >= threshold - _ROUNDING)
        stages.append(replace(stage, threshold=threshold, accepted=accepted))
        if accepted:
            break
    end = stages[-1]
    failure = full.failure if end.failure else None
    return replace(
        full,
        strategy=name or full.strategy,
        stages=tuple(stages),
        answer=end.answer,
        verdict=end.verdict,
        failure=failure,
    )


def fit(trees: Sequence[Trace], large: Sequence[Trace], known: Prices, large_model: str = "large") -> Fitted:
    """The cheapest thresholds whose accuracy is at least the large model's on the same problems.

    Where none reaches it, the most accurate; of equals the cheaper, then the stricter. Candidates are all levels of
    consensus that occur at a gated stage, and never. Problems and seeds in which anything failed are left out. Where
    costs are unknown, the large model's calls stand in, and `unit` says so. Raises ServerError when nothing is left.
    """
    answers = {(trace.problem_id, trace.seed): trace for trace in large}
    usable = [
        tree
        for tree in trees
        if Verdict.failure not in [stage.verdict for stage in tree.stages]
        and answers[tree.problem_id, tree.seed].verdict is not Verdict.failure
    ]
    if not usable:
        raise ServerError("thresholds cannot be fitted: every problem of the calibration split failed")
    # A tree that failed may lack stages, so the gates are those of one that did not.
    gates = [stage.stage for stage in usable[0].stages if stage.consensus is not None]
    goal = float(np.mean([_right(answers[tree.problem_id, tree.seed].verdict) for tree in usable]))
    table = _Table(usable, gates, known, large_model)
    sweep = [table.row(choice) for choice in product(*(table.levels(gate) for gate in range(len(gates))))]
    best, rule = _best(sweep, goal)
    return Fitted(
        thresholds=dict(zip(gates, best["thresholds"], strict=True)),
        accuracy=best["accuracy"],
        large_accuracy=goal,
        cost=best["cost"],
        unit=table.unit,
        problems=len(usable),
        rule=rule,
        sweep=sweep,
    )


def _best(sweep: Sequence[dict[str, object]], goal: float) -> tuple[dict[str, object], str]:
    """The row that the rule of `fit` takes, and the rule in words."""
    enough = [row for row in sweep if row["accuracy"] >= goal - _ROUNDING]
    if enough:
        return min(enough, key=lambda row: (row["cost"], -row["accuracy"])), "cheapest at the large model's accuracy"
    return max(sweep, key=lambda row: (row["accuracy"], -row["cost"])), "most accurate: none reaches the large's"


class _Table:
    """A full tree as arrays, so that hundreds of thresholds replay at once. Rows are traces, columns stages."""

    def __init__(self, trees: Sequence[Trace], gates: Sequence[str], known: Prices, large_model: str) -> None:
        self._gates = gates
        self._consensus = np.array([[stage.consensus or 0.0 for stage in tree.stages[: len(gates)]] for tree in trees])
        self._right = np.array([[_right(stage.verdict) for stage in tree.stages] for tree in trees])
        cut = [[replace(tree, stages=tree.stages[: end + 1]) for end in range(len(tree.stages))] for tree in trees]
        costs = [[of_trace(part, known) for part in row] for row in cut]
        if any(cost is None for row in costs for cost in row):
            self.unit = "large model's calls a problem"
            calls = [
                [sum(s.usage[large_model].calls for s in p.stages if large_model in s.usage) for p in r] for r in cut
            ]
            self._cost = np.array(calls, dtype=float)
        else:
            self.unit = "USD per million problems"
            self._cost = np.array(costs, dtype=float) * 1e6

    def levels(self, gate: int) -> list[float]:
        """Thresholds worth trying at a gate, the strictest first."""
        return [NEVER, *sorted({float(level) for level in self._consensus[:, gate] if level > 0}, reverse=True)]

    def row(self, thresholds: Sequence[float]) -> dict[str, object]:
        """Accuracy and cost under some thresholds."""
        accepts = self._consensus >= np.array(thresholds) - _ROUNDING
        accepts = np.hstack([accepts, np.ones((len(accepts), self._right.shape[1] - accepts.shape[1]), dtype=bool)])
        end = accepts.argmax(axis=1)
        rows = np.arange(len(end))
        accuracy, cost = float(self._right[rows, end].mean()), float(self._cost[rows, end].mean())
        return {"thresholds": list(thresholds), "accuracy": accuracy, "cost": cost}


def _right(verdict: Verdict) -> float:
    return float(verdict is Verdict.right)
