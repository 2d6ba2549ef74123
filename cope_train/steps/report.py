"""report: traces in, report.md, report.html and report.json out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from cope_train.errors import BooksDoNotBalance, UserError
from cope_train.evaluation.cost import Prices, balanced, prices
from cope_train.evaluation.examples import pick
from cope_train.evaluation.headline import headline
from cope_train.evaluation.lines import Line, from_traces, random_escalation
from cope_train.evaluation.report import write
from cope_train.evaluation.summary import summarise
from cope_train.recipe import prices as asked_prices
from cope_train.recipe.strategies import Adapters
from cope_train.records import Trace, from_json
from cope_train.steps.evaluate import asked, entries
from cope_train.study import Study

_CHOICES = get_args(Adapters)
_LAB = (
    "The lab pair is a laboratory: tiny models whose ignorance is designed, on problems we made up. What happens here "
    "shows how the method works, and is no evidence about real models."
)


def report(study: Study) -> None:
    """Write the report of the traces of the test split, and say its headline."""
    done = study.run.inputs("evaluate")
    if done is None:
        raise UserError(f"{study.run.path} holds no finished evaluation: cope-train evaluate comes first")
    study.refuse_others("evaluate", asked(study, entries(study, list(done["adapters"]))), "the traces")
    traces = _traces(study)
    problems = study.problems("test")
    order = [problem.id for problem in problems]
    known = prices(study.recipe.models)
    lines = [from_traces(name, rows, order, known, "large") for name, rows in traces.items()]
    lines += _references(study, lines)
    cascade = study.recipe.cascade.strategy
    section, seeds = study.recipe.evaluate, study.recipe.seeds
    fitted = json.loads(study.run.calibration.read_text()) if study.run.calibration.exists() else {}
    spend = study.store.spend()
    _balance(spend.balanced, traces, known)
    levels = {problem.id: problem.level for problem in problems}
    content = {
        **summarise(lines, section, order, seeds, dict.fromkeys((cascade, "large")), levels),
        "name": study.recipe.name,
        "task": study.recipe.task,
        "cascade": cascade,
        "thresholds": study.recipe.cascade.thresholds,
        "margin": section.margin,
        "calibration": {name: {k: v for k, v in fit.items() if k != "sweep"} for name, fit in fitted.items()},
        "ledger": {
            "calls": spend.calls,
            "failed": spend.failed,
            "usd": float(spend.usd),
            "unpriced": spend.unpriced,
            "compute_usd": float(spend.compute_usd),
            "prices": asked_prices.source(study.recipe.models),
            "balanced": True,
        },
    }
    sweeps = {name: fit["sweep"] for name, fit in fitted.items() if fit["unit"].startswith("USD")}
    write(study.run.path, content, sweeps, _examples(traces, cascade, problems), _notes(study))
    study.manifest("report")
    for line in headline(content, cascade):
        study.reporter.say(line)
    study.reporter.say(f"report: {study.run.report('html')}")


def _balance(spend: bool, traces: Mapping[str, Sequence[Trace]], known: Prices) -> None:
    """Raise BooksDoNotBalance unless both books do: figures from books that disagree are none."""
    wrong = [name for name, rows in traces.items() if not balanced(rows, known)]
    if not spend:
        raise BooksDoNotBalance("the ledger was billed for other tokens than its completions hold")
    if wrong:
        raise BooksDoNotBalance(f"costs by problem and costs by stage differ for {', '.join(wrong)}")


def _traces(study: Study) -> dict[str, list[Trace]]:
    """Traces of every strategy, over all seeds, in the order they were evaluated."""
    found: dict[str, list[Trace]] = {}
    for path in study.run.trace_files("test"):
        for line in path.read_text(encoding="utf-8").splitlines():
            trace = from_json(Trace, line)
            found.setdefault(trace.strategy, []).append(trace)
    order = list(study.recipe.evaluate.strategies)

    def place(name: str) -> tuple:
        base, _, adapters = name.partition("@")
        plain = base.removesuffix("*")
        return (order.index(plain) if plain in order else len(order), "*" in base, _CHOICES.index(adapters or "none"))

    return {name: found[name] for name in sorted(found, key=place)}


def _references(study: Study, lines: Sequence[Line]) -> list[Line]:
    section = study.recipe.evaluate
    if "random-escalation" not in section.strategies:
        return []
    by_name = {line.name: line for line in lines}
    cascade = by_name.get(study.recipe.cascade.strategy)
    share = section.random_escalation
    if share is None and cascade is not None and cascade.no_large is not None:
        share = 1 - cascade.no_large
    if share is None:
        raise UserError("random-escalation: no problem of the cascade could be answered, so it has no share to copy")
    return [random_escalation(by_name["small-single"], by_name["large"], share)]


def _examples(traces: Mapping[str, list[Trace]], cascade: str, problems: Sequence[Any]) -> list[dict]:
    after = next(
        (name for name in (f"{cascade}@planner", f"{cascade}@both", f"{cascade}@executor") if name in traces), None
    )
    return pick(traces[cascade], traces[after], problems) if after and cascade in traces else []


def _notes(study: Study) -> list[str]:
    paths = [getattr(spec, "path", "") for spec in study.recipe.models.values()]
    return [_LAB] if any(str(path).startswith("lab/") for path in paths) else []
