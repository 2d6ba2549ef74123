"""Traces made by hand."""

from __future__ import annotations

from cope_train.recipe.model_specs import Price
from cope_train.records import Sample, StageTrace, Trace, Usage, Verdict

RIGHT, WRONG, UNPARSEABLE, FAILURE = Verdict.right, Verdict.wrong, Verdict.unparseable, Verdict.failure
PRICES = {"small": Price(input=0, output=0), "large": Price(input="0.15", output="0.60")}


def used(calls: int = 1, prompt: int | None = 10, completion: int | None = 5, seconds: float = 0.0) -> Usage:
    return Usage(calls, prompt, completion, seconds)


def stage(
    name: str = "solve",
    verdict: Verdict = RIGHT,
    consensus: float | None = None,
    usage: dict[str, Usage] | None = None,
    threshold: float | None = None,
    accepted: bool = True,
    text: str = "thus =1",
    plans: dict[str, str] | None = None,
) -> StageTrace:
    """One stage whose only sample answers 1; nothing at all where it failed."""
    failed = verdict is FAILURE
    answer = None if failed or verdict is UNPARSEABLE else "1"
    sample = Sample(0, text, answer, None if answer is None else 0, plans or {})
    return StageTrace(
        stage=name,
        samples=() if failed else (sample,),
        answer=answer,
        consensus=None if failed else consensus,
        threshold=threshold,
        accepted=accepted and not failed,
        verdict=verdict,
        usage=usage or {},
        failure="line is dead" if failed else None,
    )


def trace(problem: str, *stages: StageTrace, seed: int = 0, strategy: str = "cope") -> Trace:
    """A trace that ends with the last of these stages."""
    end = stages[-1]
    return Trace(strategy, seed, problem, stages, end.answer, end.verdict, end.failure)
