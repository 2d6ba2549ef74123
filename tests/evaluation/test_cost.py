"""The stand-alone book: exact, unknown when anything in it is unknown, and checked to balance."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cope_train.evaluation import cost
from cope_train.recipe.model_specs import ApiModel, LocalModel, Price, RecordedModel
from cope_train.records import Trace
from tests.evaluation.made import PRICES, WRONG, stage, trace, used


def two_stages(problem: str = "p0", tokens: int | None = 100) -> Trace:
    first = stage("stage1", WRONG, 0.5, {"small": used(9, 90, 80)}, accepted=False)
    return trace(problem, first, stage("stage2", usage={"large": used(1, tokens, 7)}))


def test_costs_are_exact_decimals() -> None:
    assert cost.usd({"large": used(1, 3, 1)}, PRICES) == Decimal("0.00000105")  # 3 x 0.15 + 0.60, per million
    assert cost.of_trace(two_stages(), PRICES) == Decimal("0.0000192")
    # Of floats, ten thousand of these would be off in the last digits.
    assert sum(cost.of_trace(two_stages(), PRICES) for _ in range(10_000)) == Decimal("0.192")


def test_what_is_not_known_makes_the_cost_unknown() -> None:
    assert cost.usd({"large": used()}, {"large": None}) is None
    assert cost.usd({"large": used(1, None, 5)}, PRICES) is None
    assert cost.usd({"large": used(1, 10, None)}, PRICES) is None
    assert cost.of_trace(two_stages(tokens=None), PRICES) is None
    assert cost.of_trace(two_stages(), PRICES | {"large": None}) is None


def test_what_costs_nothing_however_little_is_known() -> None:
    assert cost.usd({"small": used(1, None, None)}, PRICES) == 0
    assert cost.usd({"large": used(0, None, None)}, {"large": None}) == 0  # no call was made
    assert cost.usd({}, PRICES) == 0


def test_an_unpriced_local_model_is_free_and_any_other_unknown() -> None:
    price = Price(input="0.15", output="0.60")
    models = {
        "local": LocalModel(backend="local", path="lab/small"),
        "bought": LocalModel(backend="local", path="lab/large", price=price),
        "server": ApiModel(backend="api", model="some"),
        "recorded": RecordedModel(backend="recorded", path="some.jsonl"),
    }
    free = Price(input=0, output=0)
    assert cost.prices(models) == {"local": free, "bought": price, "server": None, "recorded": None}


def test_the_book_balances_by_problem_and_by_stage() -> None:
    traces = [two_stages(f"p{i}", tokens=i) for i in range(50)]
    assert cost.balanced(traces, PRICES)
    assert cost.balanced([], PRICES)
    assert cost.balanced([two_stages(tokens=None)], PRICES)  # unknown costs cannot be out of balance


def test_a_book_that_does_not_balance_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [two_stages(f"p{i}") for i in range(3)]
    right = cost.of_trace
    # One problem's last stage is forgotten in one of the two books.
    monkeypatch.setattr(
        cost, "of_trace", lambda t, known: right(trace("p", *t.stages[: 1 + (t is not traces[1])]), known)
    )
    assert not cost.balanced(traces, PRICES)
