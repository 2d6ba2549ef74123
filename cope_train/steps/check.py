"""check: says what a recipe would do, what it would cost at most, and what this machine lacks for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cope_train.errors import NotRunnableHere, UserError
from cope_train.models import backend
from cope_train.models.folders import resolve
from cope_train.recipe import Recipe
from cope_train.recipe.model_specs import LocalModel, Price
from cope_train.recipe.schema import Data
from cope_train.records import Problem
from cope_train.rundir import RunDir
from cope_train.steps.bounds import SPLITS, Bound, bounds
from cope_train.study import Study
from cope_train.tasks import data


@dataclass
class Findings:
    """What `check` found: plain lines of what would be done, bounds by model, and what is missing here."""

    plan: list[str] = field(default_factory=list)
    bounds: dict[str, Bound] = field(default_factory=dict)
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
    lacking: set[str] = set()  # asking a hub that cannot be reached takes half a minute; once is enough
    for split in SPLITS:
        source: Data | None = getattr(recipe.data, split)
        if source is None:
            continue
        known = source.source not in lacking
        rows = _here(found, lambda source=source: data.load(source, recipe.task)) if known else None
        if rows is None:
            lacking.add(source.source)
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
    study = Study(recipe, RunDir(Path()))  # nothing is opened, read or written
    if recipe.train:
        found.plan.append(f"train: LoRA adapters for {' and '.join(study.roles)} of {recipe.train.base}")
    found.plan.append(f"evaluate: {', '.join(recipe.evaluate.strategies)}; seeds {list(recipe.seeds)}")
    found.bounds, unknown = bounds(study, splits)
    found.plan += [f"{split}: of unknown size, and left out of what follows" for split in unknown]
    found.plan += [_told(name, bound, recipe.models[name].price) for name, bound in found.bounds.items()]


def _told(name: str, bound: Bound, price: Price | None) -> str:
    line = (
        f"{name}: at most {bound.calls:,} calls, {bound.prompt_tokens:,} prompt tokens (as if each byte were one) "
        f"and {bound.completion_tokens:,} completion tokens"
    )
    return f"{line}: up to {bound.usd(price):,.2f} USD" if price else line
