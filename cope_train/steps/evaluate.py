"""evaluate: every strategy on the same problems, thresholds fitted on the calibration split, traces out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cope_train.cascade.engine import Engine
from cope_train.errors import ServerError, UserError
from cope_train.evaluation.cost import prices
from cope_train.evaluation.replay import Fitted, fit
from cope_train.models.identity import weights_fingerprint
from cope_train.recipe.strategies import REFERENCES, STRATEGIES, Adapters, Strategy, parse
from cope_train.records import Trace, to_json
from cope_train.study import Study

_MAX_FAILED = 0.2
_NEEDS = {"none": (), "planner": ("planner",), "executor": ("executor",), "both": ("planner", "executor")}


@dataclass(frozen=True)
class Entry:
    """One line of the report: a strategy with adapters, under the name it is reported by."""

    name: str
    strategy: Strategy
    adapters: Adapters


def entries(study: Study, trained: Mapping[str, Path] | Sequence[str]) -> list[Entry]:
    """What will be evaluated. The cascade is entered once for each adapter choice that `trained` allows.

    Raises UserError for a strategy that asks by name for an adapter that there is not.
    """
    recipe = study.recipe
    found = []
    for name in recipe.evaluate.strategies:
        if name in REFERENCES:
            continue
        strategy, adapters = parse(name)
        expand = strategy.name == recipe.cascade.strategy and "@" not in name
        for choice in recipe.evaluate.adapters if expand else [adapters]:
            if all(role in trained for role in _NEEDS[choice]):
                shown = strategy.name if choice == "none" else f"{strategy.name}@{choice}"
                found.append(Entry(shown, _with_recipe_thresholds(study, strategy), choice))
            elif not expand:
                raise UserError(f"evaluate.strategies: {name} needs adapters that this recipe neither trains nor names")
    return list({entry.name: entry for entry in found}.values())


def _with_recipe_thresholds(study: Study, strategy: Strategy) -> Strategy:
    given = study.recipe.cascade.thresholds
    chosen = strategy.name == study.recipe.cascade.strategy and given != "paper"
    return strategy.with_thresholds(given) if chosen else strategy


def evaluate(study: Study) -> None:
    """Run every strategy on the test split, and fit thresholds on the calibration split where the recipe says so."""
    adapters = study.adapters()
    wanted = entries(study, adapters)
    inputs = asked(study, wanted) | _answering(study, adapters, wanted)
    if study.up_to_date("evaluate", inputs | {"failed": 0}, _outputs(study, wanted)):
        return
    recipe = study.recipe
    models = study.models("evaluate", adapters)
    engine = Engine(models, study.task, recipe.sampling, study.trained, study.patient)
    problems = study.problems("test")
    fitted, failed = _calibrate(study, engine, wanted)
    study.run.write_json(study.run.calibration, {name: vars(fit) for name, fit in fitted.items()})
    stars = [
        Entry(star(entry.name), entry.strategy.with_thresholds(fitted[entry.name].thresholds), entry.adapters)
        for entry in wanted
        if entry.name in fitted
    ]
    study.run.clear_traces("test")
    for number, entry in enumerate([*wanted, *stars], start=1):
        study.reporter.advance("strategies", number - 1, len(wanted) + len(stars))
        for seed in recipe.seeds:
            traces = engine.run(entry.strategy, problems, seed, entry.adapters, entry.name)
            failed += _save(study, "test", entry.name, seed, traces)
        study.reporter.advance("strategies", number, len(wanted) + len(stars))
    # What could not be had is asked for once more by the same command.
    study.done("evaluate", inputs | {"failed": failed})
    study.reporter.say(f"evaluate: {len(wanted) + len(stars)} strategies on {len(problems)} problems")


def star(name: str) -> str:
    """Name of a cascade with fitted thresholds: cope@planner becomes cope*@planner."""
    base, at, adapters = name.partition("@")
    return f"{base}*{at}{adapters}"


def _calibrate(study: Study, engine: Engine, wanted: Sequence[Entry]) -> tuple[dict[str, Fitted], int]:
    """Thresholds for every variant of the cascade, from a full tree over the calibration split; traces that failed."""
    recipe = study.recipe
    cascades = [
        entry for entry in wanted if entry.strategy.name == recipe.cascade.strategy and entry.strategy.thresholds
    ]
    if not (recipe.cascade.calibrate and recipe.data.calibration and cascades):
        return {}, 0
    problems = study.problems("calibration")
    large = [trace for seed in recipe.seeds for trace in engine.run(STRATEGIES["large"], problems, seed)]
    fitted, failed = {}, sum(trace.failure is not None for trace in large)
    for number, entry in enumerate(cascades):
        study.reporter.advance("calibration", number, len(cascades))
        trees: list[Trace] = []
        for seed in recipe.seeds:
            traces = engine.run(entry.strategy, problems, seed, entry.adapters, entry.name, full_tree=True)
            failed += _save(study, "calibration", entry.name, seed, traces)
            trees += traces
        fitted[entry.name] = fit(trees, large, prices(recipe.models))
    study.reporter.advance("calibration", len(cascades), len(cascades))
    return fitted, failed


def _save(study: Study, split: str, name: str, seed: int, traces: Sequence[Trace]) -> int:
    """Write traces; how many of them lack a call that could not be had. Raises ServerError when those are too many."""
    study.run.write_lines(study.run.traces(split, name, seed), [to_json(trace) for trace in traces])
    failures = [trace.failure for trace in traces if trace.failure]
    if len(failures) > _MAX_FAILED * len(traces):
        raise ServerError(
            f"{name}: {len(failures)} of {len(traces)} problems could not be answered, the first because of "
            f"{failures[0]}; what arrived is kept: the same command goes on from there"
        )
    return len(failures)


def _outputs(study: Study, wanted: Sequence[Entry]) -> list[Path]:
    names = [entry.name for entry in wanted]
    if study.run.calibration.exists():
        names += [star(name) for name in json.loads(study.run.calibration.read_text())]
    traces = [study.run.traces("test", name, seed) for name in names for seed in study.recipe.seeds]
    return [study.run.calibration, *traces]


def asked(study: Study, wanted: Sequence[Entry]) -> dict[str, Any]:
    """What the traces of this recipe depend on, less the models."""
    recipe = study.recipe
    return {
        "task": recipe.task,
        "seeds": list(recipe.seeds),
        "data": {split: study.data_hashes[split] for split in ("calibration", "test") if split in study.data_hashes},
        "cascade": recipe.cascade.model_dump(mode="json"),
        "strategies": {entry.name: repr(entry.strategy.stages) for entry in wanted},
        "sampling": {role: values.model_dump(mode="json") for role, values in recipe.sampling.items()},
        "prompts": study.prompts.hashes,
    }


def _answering(study: Study, adapters: Mapping[str, Path], wanted: Sequence[Entry]) -> dict[str, Any]:
    return {
        "models": study.model_inputs(sorted({name for entry in wanted for name in entry.strategy.models})),
        "adapters": {role: weights_fingerprint(folder) for role, folder in adapters.items()},
    }
