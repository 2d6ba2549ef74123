"""Prices: the recipe's word first, then genai-prices', and never a guess."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cope_train.errors import UserError
from cope_train.recipe import prices
from cope_train.recipe.model_specs import ApiModel, LocalModel, Price


def api(model: str, **fields) -> ApiModel:
    return ApiModel(backend="api", model=model, **fields)


def test_a_known_model_has_its_makers_price() -> None:
    assert prices.of(api("gpt-4o-mini")) == Price(input=0.15, output=0.60, cached_input=0.075)
    assert prices.of(api("gpt-4o-mini", base_url="https://api.openai.com/v1")) == prices.of(api("gpt-4o-mini"))
    assert "genai-prices 0." in prices.source({"large": api("gpt-4o-mini")})["large"]


def test_the_recipes_word_comes_first() -> None:
    own = api("gpt-4o-mini", price=Price(input=1, output=2))
    assert prices.of(own).input == Decimal(1)
    assert prices.source({"large": own}) == {"large": "the recipe"}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (api("no-such-model"), "does not know no-such-model"),
        (api("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1"), "does not know gpt-4o-mini at http://127.0.0.1"),
        (
            api("gemini-2.5-pro", base_url="https://generativelanguage.googleapis.com/v1beta/openai"),
            "stepped prices for gemini-2.5-pro",
        ),
    ],
)
def test_what_is_not_known_or_depends_on_more_is_not_guessed(spec: ApiModel, why: str) -> None:
    assert prices.of(spec) is None
    with pytest.raises(UserError, match=rf"models\.large\.price: genai-prices .*{why}.*input and output"):
        prices.require({"large": spec}, ["large"], "a budget needs it")
    assert prices.source({"large": spec}) == {"large": "unknown"}


def test_a_model_that_runs_here_has_no_price_to_ask_for() -> None:
    local = LocalModel(backend="local", path="lab/small")
    assert prices.of(local) is None
    prices.require({"small": local}, ["small"], "a budget needs it")
