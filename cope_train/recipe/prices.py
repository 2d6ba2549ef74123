"""What a model's tokens cost: the recipe's word first, then the tables of `genai-prices`; never a guess."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from importlib.metadata import version

from cope_train.errors import UserError
from cope_train.recipe.model_specs import ApiModel, LocalModel, Price, RecordedModel

Spec = LocalModel | ApiModel | RecordedModel


def of(spec: Spec) -> Price | None:
    """A model's price; None when it is not known, or there is none since it runs here."""
    if spec.price or not isinstance(spec, ApiModel):
        return spec.price
    found = _looked_up(spec)
    return found if isinstance(found, Price) else None


def bought(models: Mapping[str, Spec]) -> set[str]:
    """The models whose calls a budget counts: those by API, and those that run here at a price as if bought."""
    return {
        name
        for name, spec in models.items()
        if isinstance(spec, ApiModel) or isinstance(spec, LocalModel) and spec.price
    }


def why_unknown(name: str, spec: Spec) -> str | None:
    """What to tell the user of a bought model whose price is not known, and where to name it."""
    if spec.price or not isinstance(spec, ApiModel):
        return None
    found = _looked_up(spec)
    if isinstance(found, Price):
        return None
    return f"models.{name}.price: {found}; give its input and output prices in USD per million tokens"


def require(models: Mapping[str, Spec], names: Iterable[str], why: str) -> None:
    """Raise UserError when the price of one of `names` is not known."""
    unknown = [told for name in names if (told := why_unknown(name, models[name]))]
    if unknown:
        raise UserError("\n".join(f"{line} ({why})" for line in unknown))


def source(models: Mapping[str, Spec]) -> dict[str, str]:
    """Where each bought model's price comes from, with the library's version and the day it was asked."""
    told = {}
    for name, spec in models.items():
        if spec.price:
            told[name] = "the recipe"
        elif isinstance(spec, ApiModel):
            library = f"genai-prices {version('genai-prices')}, its price of {date.today()}"
            told[name] = library if of(spec) else "unknown"
    return told


def _looked_up(spec: ApiModel) -> Price | str:
    """The library's price, or in words why there is none."""
    import genai_prices

    where = {"provider_api_url": spec.base_url} if spec.base_url else {"provider_id": "openai"}
    usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
    try:
        found = genai_prices.calc_price(usage, spec.model, **where)
    except LookupError:
        at = f" at {spec.base_url}" if spec.base_url else ""
        return f"genai-prices does not know {spec.model}{at}"
    costs = [found.model_price.input_mtok, found.model_price.output_mtok, found.model_price.cache_read_mtok]
    if not all(isinstance(cost, Decimal | None) for cost in costs):
        return f"genai-prices has stepped prices for {spec.model}, which depend on more than its tokens"
    if _by_the_clock(found.model):
        return f"genai-prices has prices for {spec.model} that change with the time of day"
    if costs[0] is None or costs[1] is None:
        return f"genai-prices has no price by token for {spec.model}"
    return Price(input=costs[0], output=costs[1], cached_input=costs[2])


def _by_the_clock(model: object) -> bool:
    conditions = model.prices if isinstance(model.prices, list) else []
    return any(hasattr(condition.constraint, "start_time") for condition in conditions)
