"""check: says what a recipe would do, what each verb would cost, and what this machine lacks for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cope_train.errors import NotRunnableHere, UserError
from cope_train.models import backend
from cope_train.models.folders import resolve
from cope_train.models.store import Store
from cope_train.recipe import Recipe, prices
from cope_train.recipe.model_specs import LocalModel, Price
from cope_train.recipe.schema import Data, Limits
from cope_train.records import Problem
from cope_train.rundir import RunDir
from cope_train.steps.bounds import SPLITS, Bound, Estimate, Past, bounds
from cope_train.study import Study
from cope_train.tasks import data


@dataclass
class Findings:
    """What `check` found: plain lines of what would be done, estimates by verb and model, and what is missing here."""

    plan: list[str] = field(default_factory=list)
    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def bounds(self) -> dict[str, Bound]:
        """What is asked of each model at most, all verbs together."""
        verbs = self.estimates.values()
        names = {name for verb in verbs for name in verb}
        return {name: sum((verb[name].high for verb in verbs), Bound()) for name in names}


def check(recipe: Recipe, out: Path | None = None) -> Findings:
    """Look at data, models, keys and adapters without asking any model.

    Completions that the store of the run folder `out` holds tell how long others will be.

    Raises UserError for what is wrong wherever it runs; what only this machine lacks is listed in `missing`.
    """
    found = Findings()
    splits = _splits(recipe, found)
    for name, spec in recipe.models.items():
        _model(name, spec, found)
    _work(recipe, splits, found, _past(recipe, out))
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


def _past(recipe: Recipe, out: Path | None) -> Past:
    """Mean tokens of the completions in the store that the recipe would use, by model and role."""
    path = Path(recipe.store) if recipe.store else RunDir(out or Path("runs") / recipe.name).store
    if not path.is_file():
        return {}
    store = Store(path)
    said: dict[tuple, list[int]] = {}
    for call in store.calls():
        if call.completion_tokens is not None and call.outcome == "answered":
            total = said.setdefault((call.model, call.role), [0, 0])
            total[0] += call.completion_tokens
            total[1] += call.samples
    store.close()
    return {key: tokens / samples for key, (tokens, samples) in said.items()}


def _work(recipe: Recipe, splits: dict[str, list[Problem]], found: Findings, past: Past) -> None:
    study = Study(recipe, RunDir(Path()))  # nothing is opened, read or written
    if recipe.train:
        found.plan.append(f"train: LoRA adapters for {' and '.join(study.roles)} of {recipe.train.base}")
    found.plan.append(f"evaluate: {', '.join(recipe.evaluate.strategies)}; seeds {list(recipe.seeds)}")
    found.estimates, unknown = bounds(study, splits, past)
    found.plan += [f"{split}: of unknown size, and left out of what follows" for split in unknown]
    for verb, models in found.estimates.items():
        for name, estimate in models.items():
            if estimate.high.calls:
                found.plan.append(f"{verb}, {name}: {_told(estimate, prices.of(recipe.models[name]))}")
    found.plan += [told for name, spec in recipe.models.items() if (told := prices.why_unknown(name, spec))]
    _budget(recipe, found)


def _told(estimate: Estimate, price: Price | None) -> str:
    low, high = estimate.low, estimate.high
    line = (
        f"{_span(low.calls, high.calls)} calls, {_span(low.prompt_tokens, high.prompt_tokens)} prompt tokens and "
        f"{_span(low.completion_tokens, high.completion_tokens)} completion tokens"
    )
    return f"{line}: {low.usd(price):,.2f} to {high.usd(price):,.2f} USD" if price else line


def _span(low: int, high: int) -> str:
    return f"{low:,} to {high:,}" if low < high else f"{high:,}"


def _budget(recipe: Recipe, found: Findings) -> None:
    """Say what may be spent. Raises UserError when that is in USD and a price is not known."""
    limits: list[tuple[str, Limits | None]] = [("the run", recipe.budget)]
    limits += [(verb, getattr(recipe.budget, verb)) for verb in ("collect", "evaluate")]
    for what, given in limits:
        if given and given.usd is not None:
            prices.require(recipe.models, recipe.models, "a budget in USD needs it; budget.calls does not")
        parts = [f"{given.usd} USD"] if given and given.usd is not None else []
        parts += [f"{given.calls:,} calls"] if given and given.calls is not None else []
        if parts:
            found.plan.append(f"budget of {what}: {' and '.join(parts)}")
