"""check: says what a recipe would do, what it would cost at most, and what this machine lacks for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cope_train.models import backend
from cope_train.models.folders import resolve
from cope_train.recipe import Recipe
from cope_train.recipe.schema import Data, LocalModel
from cope_train.recipe.schema import Sampling as RoleSampling
from cope_train.recipe.strategies import STRATEGIES, parse
from cope_train.records import NotRunnableHere, Problem, UserError
from cope_train.tasks import data

_CHARACTERS_PER_TOKEN = 3  # a cautious figure for English and formulas; prompts are counted exactly when sent


@dataclass
class Findings:
    """What `check` found: plain lines of what would be done, and of what is missing here."""

    plan: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def check(recipe: Recipe) -> Findings:
    """Look at data, models, keys and adapters without asking any model.

    Raises UserError for what is wrong wherever it runs; what only this machine lacks is listed in `missing`.
    """
    found = Findings()
    splits = _splits(recipe, found)
    for name, spec in recipe.models.items():
        _model(name, spec, found)
    _work(recipe, splits, found)
    return found


def _here(found: Findings, look: Callable[[], Any]) -> Any:
    try:
        return look()
    except NotRunnableHere as error:
        found.missing.append(str(error))
        return None


def _splits(recipe: Recipe, found: Findings) -> dict[str, list[Problem]]:
    loaded: dict[str, list[Problem]] = {}
    for split in ("train", "calibration", "test"):
        source: Data | None = getattr(recipe.data, split)
        if source is None:
            continue
        rows = _here(found, lambda source=source: data.load(source, recipe.task))
        size = f"{len(rows)} problems" if rows else f"{source.limit or 'all'} problems (not looked at)"
        where = f"{source.source}{'/' + source.name if source.name else ''}, split {source.split}"
        found.plan.append(f"{split}: {size} of {where}")
        if rows:
            loaded[split] = rows
    if overlaps := data.overlap(loaded):
        raise UserError("\n".join(overlaps))
    return loaded


def _model(name: str, spec: Any, found: Findings) -> None:
    if isinstance(spec, LocalModel):
        folder = _here(found, lambda: resolve(spec.path, spec.revision))
        if folder:
            _here(found, lambda: backend(name, spec))
        found.plan.append(f"model {name}: {spec.path} runs on this machine ({_device(spec)}, {spec.dtype})")
    elif spec.backend == "api":
        where = spec.base_url or "OpenAI"
        found.plan.append(f"model {name}: {spec.model} at {where}, key from {spec.api_key_env}")
        if not os.environ.get(spec.api_key_env):
            found.missing.append(f"model {name}: no key; set the environment variable {spec.api_key_env}")
    else:
        backend(name, spec)
        found.plan.append(f"model {name}: completions recorded in {spec.path}")


def _device(spec: LocalModel) -> str:
    import torch

    return spec.device or spec.device_map or ("cuda" if torch.cuda.is_available() else "cpu")


def _work(recipe: Recipe, splits: dict[str, list[Problem]], found: Findings) -> None:
    """Upper bounds: every stage for every problem, every completion at its full length."""
    count = {s: len(splits[s]) if s in splits else getattr(getattr(recipe.data, s), "limit", None) for s in _SPLITS}
    spent: dict[str, list[int]] = {name: [0, 0, 0] for name in recipe.models}
    if recipe.plans and count["train"]:
        _collecting(recipe, count["train"], splits.get("train", []), spent)
    if recipe.train:
        roles = [role for role in ("planner", "executor") if getattr(recipe.train, role)]
        found.plan.append(f"train: LoRA adapters for {' and '.join(roles)} of {recipe.train.base}")
    if count["test"]:
        _evaluating(recipe, count["test"] * len(recipe.seeds), splits.get("test", []), spent)
    found.plan.append(f"evaluate: {', '.join(recipe.evaluate.strategies)}; seeds {list(recipe.seeds)}")
    for name, (calls, prompt, completion) in spent.items():
        line = f"{name}: at most {calls:,} calls, about {prompt:,} prompt and up to {completion:,} completion tokens"
        price = recipe.models[name].price
        if price:
            usd = (prompt * price.input + completion * price.output) / Decimal(1_000_000)
            line += f": up to {usd:,.2f} USD"
        found.plan.append(line)


_SPLITS = ("train", "calibration", "test")


def _prompt_tokens(problems: list[Problem]) -> int:
    if not problems:
        return 300
    return 120 + sum(len(problem.question) for problem in problems) // len(problems) // _CHARACTERS_PER_TOKEN


def _max_tokens(recipe: Recipe, role: str) -> int:
    return recipe.sampling.get(role, RoleSampling()).max_tokens


def _collecting(recipe: Recipe, count: int, problems: list[Problem], spent: dict[str, list[int]]) -> None:
    section, prompt = recipe.plans, _prompt_tokens(problems)
    for kind in section.kinds:
        _add(spent, section.planner, count, prompt, section.samples * _max_tokens(recipe, kind))
        tries = count * section.samples
        _add(spent, section.keep.executor, tries, prompt, section.keep.samples * _max_tokens(recipe, "solution"))


def _evaluating(recipe: Recipe, count: int, problems: list[Problem], spent: dict[str, list[int]]) -> None:
    prompt = _prompt_tokens(problems)
    names = [name for name in recipe.evaluate.strategies if parse(name)]
    for name in names:
        strategy = parse(name)[0]
        times = len(recipe.evaluate.adapters) if strategy is STRATEGIES[recipe.cascade.strategy] else 1
        for stage in strategy.stages:
            if stage.plan:
                written = stage.samples if stage.plan.each else 1
                _add(spent, stage.plan.planner, count, prompt, written * _max_tokens(recipe, stage.plan.kind))
            separate = stage.samples if stage.plan and stage.plan.each else 1
            shared = stage.samples // separate
            tokens = shared * _max_tokens(recipe, "solution")
            _add(spent, stage.executor, count * separate * times, prompt, tokens)


def _add(spent: dict[str, list[int]], model: str, calls: int, prompt: int, completion: int) -> None:
    row = spent[model]
    row[0] += calls
    row[1] += calls * prompt
    row[2] += calls * completion
