"""Problems worth looking at: the same one before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cope_train.records import Problem, StageTrace, Trace, Verdict


def pick(before: Sequence[Trace], after: Sequence[Trace], problems: Sequence[Problem], count: int = 10) -> list[dict]:
    """Up to `count` problems, those first whose verdict or stage changed, gains and losses by turns.

    Problems in which either side failed show nothing about models, and are left out.
    """
    later = {(trace.problem_id, trace.seed): trace for trace in after}
    pairs = [(trace, later[trace.problem_id, trace.seed]) for trace in before if trace.seed == before[0].seed]
    pairs = [pair for pair in pairs if Verdict.failure not in (pair[0].verdict, pair[1].verdict)]
    kinds: dict[str, list[tuple[Trace, Trace]]] = {}
    for one, two in pairs:
        kinds.setdefault(_kind(one, two), []).append((one, two))
    chosen: list[tuple[Trace, Trace]] = []
    # By turns, so that ten examples are never ten successes.
    order = ("gained", "lost", "cheaper", "dearer", "same")
    while len(chosen) < min(count, len(pairs)):
        chosen += [kinds[kind].pop(0) for kind in order if kinds.get(kind)]
    by_id = {problem.id: problem for problem in problems}
    return [_example(by_id[one.problem_id], one, two) for one, two in chosen[:count]]


def _kind(before: Trace, after: Trace) -> str:
    right = [trace.verdict is Verdict.right for trace in (before, after)]
    if right[0] != right[1]:
        return "gained" if right[1] else "lost"
    stages = [len(trace.stages) for trace in (before, after)]
    if stages[0] == stages[1]:
        return "same"
    return "cheaper" if stages[1] < stages[0] else "dearer"


def _example(problem: Problem, before: Trace, after: Trace) -> dict[str, Any]:
    return {
        "id": problem.id,
        "question": problem.question,
        "gold": problem.answer,
        "what": _kind(before, after),
        "before": _side(before),
        "after": _side(after),
    }


def _side(trace: Trace) -> dict[str, Any]:
    end = trace.stages[-1]
    winner = next((s for s in end.samples if s.answer is not None and s.answer == trace.answer), None)
    winner = winner or (end.samples[0] if end.samples else None)
    return {
        "strategy": trace.strategy,
        "stage": end.stage,
        "consensus": _consensus(trace.stages),
        "verdict": str(trace.verdict),
        "answer": trace.answer,
        "plans": dict(winner.plans) if winner else {},
        "solution": winner.text if winner else "",
    }


def _consensus(stages: Sequence[StageTrace]) -> str:
    return ", ".join(f"{stage.consensus:.2f}" for stage in stages if stage.consensus is not None)
