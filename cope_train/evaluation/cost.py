"""The stand-alone book: what each strategy would cost by itself, charged in full for what it used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from cope_train.recipe import prices as asked
from cope_train.recipe.model_specs import LocalModel, Price
from cope_train.records import Trace, Usage

_FREE = Price(input=0, output=0)
_MILLION = Decimal(1_000_000)
Prices = Mapping[str, Price | None]


def prices(models: Mapping[str, object]) -> dict[str, Price | None]:
    """Price of each model of a recipe: an unpriced local one is free, any other unpriced one unknown (None)."""
    known = {name: asked.of(spec) for name, spec in models.items()}
    return {name: known[name] or (_FREE if isinstance(spec, LocalModel) else None) for name, spec in models.items()}


def usd(usage: Mapping[str, Usage], known: Prices) -> Decimal | None:
    """Exact cost of what was used; None when a price or a token count is not known."""
    total = Decimal(0)
    for model, used in usage.items():
        price = known[model]
        if used.calls == 0 or price == _FREE:
            continue
        if price is None or used.prompt_tokens is None or used.completion_tokens is None:
            return None
        total += (used.prompt_tokens * price.input + used.completion_tokens * price.output) / _MILLION
    return total


def of_trace(trace: Trace, known: Prices) -> Decimal | None:
    """Cost of one problem under one strategy."""
    parts = [usd(stage.usage, known) for stage in trace.stages]
    return None if None in parts else sum(parts, Decimal(0))


def balanced(traces: Sequence[Trace], known: Prices) -> bool:
    """True when the costs of all problems and the costs of all stages add up to the same sum."""
    by_problem = [of_trace(trace, known) for trace in traces]
    if None in by_problem:
        return True
    by_stage: dict[str, dict[str, Usage]] = {}
    for trace in traces:
        for stage in trace.stages:
            book = by_stage.setdefault(stage.stage, {})
            for model, used in stage.usage.items():
                book[model] = book.get(model, Usage()) + used
    # Tokens are added up before they are priced here, and priced before they are added up above.
    return sum(by_problem, Decimal(0)) == sum((usd(book, known) for book in by_stage.values()), Decimal(0))
