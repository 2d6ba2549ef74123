"""Strategies as lines of a table: traces, or other lines, as arrays over the same problems and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cope_train.evaluation.cost import Prices, of_trace
from cope_train.records import Trace, Verdict


@dataclass(frozen=True)
class Line:
    """One line of the report. Arrays are [problems, seeds]: outcome 0-1 (NaN: failure), cost in USD (None: unknown).

    `share` maps a stage to its share of the problems that were resolved, `no_large` is the share that made no call to
    the large model; tokens and seconds are means per problem.
    """

    name: str
    outcomes: np.ndarray
    usd: np.ndarray | None
    share: Mapping[str, float]
    large_calls: float | None
    small_tokens: float | None
    large_tokens: float | None
    seconds: float | None
    no_large: float | None = None
    unparseable: int = 0
    failures: int = 0
    accepted: Mapping[str, dict[str, float | int]] = field(default_factory=dict)


def from_traces(name: str, traces: Sequence[Trace], order: Sequence[str], known: Prices, large: str) -> Line:
    """A strategy's traces as a line; `order` gives the problems' ids, `large` the large model's name."""
    seeds = sorted({trace.seed for trace in traces})
    place = {problem: row for row, problem in enumerate(order)}
    outcomes = np.full((len(order), len(seeds)), np.nan)
    costs = np.full_like(outcomes, np.nan)
    unknown = False
    for trace in traces:
        at = place[trace.problem_id], seeds.index(trace.seed)
        if trace.verdict is not Verdict.failure:
            outcomes[at] = float(trace.verdict is Verdict.right)
            cost = of_trace(trace, known)
            unknown |= cost is None
            costs[at] = np.nan if cost is None else float(cost)
    settled = [trace for trace in traces if trace.verdict is not Verdict.failure]
    ends = Counter(trace.stages[-1].stage for trace in settled)
    calls = [sum(s.usage[large].calls for s in t.stages if large in s.usage) for t in settled]
    return Line(
        name=name,
        outcomes=outcomes,
        usd=None if unknown else costs,
        share={stage: ends[stage] / len(settled) for stage in _stages(traces) if settled},
        large_calls=_mean(calls),
        no_large=_mean([float(count == 0) for count in calls]),
        small_tokens=_mean([_tokens(trace, large, False) for trace in settled]),
        large_tokens=_mean([_tokens(trace, large, True) for trace in settled]),
        seconds=_mean([sum(used.seconds for s in t.stages for used in s.usage.values()) for t in settled]),
        unparseable=sum(trace.verdict is Verdict.unparseable for trace in traces),
        failures=len(traces) - len(settled),
        accepted=_accepted(settled),
    )


def random_escalation(small: Line, large: Line, share: float, name: str = "random-escalation") -> Line:
    """Each problem goes to the large model with probability `share`, else to the small one: the exact expectation."""

    def mix(a: np.ndarray | float | None, b: np.ndarray | float | None):
        return None if a is None or b is None else (1 - share) * a + share * b

    return Line(
        name=name,
        outcomes=mix(small.outcomes, large.outcomes),
        usd=mix(small.usd, large.usd),
        share={"small": 1 - share, "large": share},
        large_calls=mix(small.large_calls, large.large_calls),
        small_tokens=mix(small.small_tokens, large.small_tokens),
        large_tokens=mix(small.large_tokens, large.large_tokens),
        seconds=mix(small.seconds, large.seconds),
        no_large=mix(small.no_large, large.no_large),
        failures=int((np.isnan(small.outcomes) | np.isnan(large.outcomes)).sum()),
    )


def _stages(traces: Sequence[Trace]) -> list[str]:
    return list(dict.fromkeys(stage.stage for trace in traces for stage in trace.stages))


def _tokens(trace: Trace, large: str, of_large: bool) -> int | None:
    used = [u for stage in trace.stages for model, u in stage.usage.items() if (model == large) == of_large]
    counts = [count for u in used for count in (u.prompt_tokens, u.completion_tokens)]
    return None if None in counts else sum(counts)


def _accepted(traces: Sequence[Trace]) -> dict[str, dict[str, float | int]]:
    """Per gated stage: how many problems it accepted, and the accuracy among them."""
    found: dict[str, list[bool]] = {}
    for trace in traces:
        if trace.stages[-1].consensus is not None:
            found.setdefault(trace.stages[-1].stage, []).append(trace.verdict is Verdict.right)
    return {stage: {"n": len(rights), "accuracy": sum(rights) / len(rights)} for stage, rights in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values or not values else float(np.mean(values))
