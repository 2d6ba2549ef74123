"""show: one problem's whole trace, readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cope_train.errors import UserError
from cope_train.records import StageTrace, Trace, from_json
from cope_train.rundir import RunDir


def show(folder: Path, problem_id: str, strategy: str | None = None) -> list[Trace]:
    """Every trace of a problem in a run, or those of one strategy. Raises UserError when there is none."""
    run = RunDir.read(folder)
    traces = [trace for split in ("test", "calibration") for trace in _read(run, split)]
    mine = [trace for trace in traces if trace.problem_id == problem_id]
    found = [trace for trace in mine if strategy in (None, trace.strategy)]
    if not mine:
        ids = list(dict.fromkeys(trace.problem_id for trace in traces))
        some = ", ".join(ids[:3] + ids[-1:])
        raise UserError(f"{folder}: no trace of problem {problem_id!r}; there are {len(ids)}, such as {some}")
    if not found:
        names = ", ".join(dict.fromkeys(trace.strategy for trace in mine))
        raise UserError(f"{folder}: strategy {strategy!r} has no trace of {problem_id}; there are {names}")
    return found


def _read(run: RunDir, split: str) -> Iterator[Trace]:
    for path in run.trace_files(split):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield from_json(Trace, line)


def lines(trace: Trace) -> Iterator[str]:
    """A trace as text, stage by stage."""
    yield f"== {trace.strategy} (seed {trace.seed}): {trace.verdict}, answer {trace.answer}"
    for stage in trace.stages:
        yield from _stage(stage)
    if trace.failure:
        yield f"   failure: {trace.failure}"


def _stage(stage: StageTrace) -> Iterator[str]:
    gate = "" if stage.consensus is None else f", consensus {stage.consensus:.3f} against {stage.threshold:g}"
    yield f"-- {stage.stage}: {'accepted' if stage.accepted else 'escalated'}{gate}, {stage.verdict}"
    if len(stage.plans) == 1:
        yield f"   {stage.plan_kind}: {stage.plans[0]}"
    for sample in stage.samples:
        own = f"  <- {stage.plans[sample.index]}" if len(stage.plans) > 1 else ""
        yield f"   [{sample.index}] answer {sample.answer}{' (cut)' if sample.finish == 'length' else ''}{own}"
    if stage.samples:
        shown = next((s for s in stage.samples if s.answer == stage.answer), stage.samples[0])
        yield from (f"   | {line}" for line in shown.text.splitlines())
    for model, used in stage.usage.items():
        tokens = f"{used.prompt_tokens} prompt + {used.completion_tokens} completion tokens"
        yield f"   {model}: {used.calls} calls, {tokens}"
