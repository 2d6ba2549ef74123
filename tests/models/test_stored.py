"""Store, ledger and spend: nothing asked twice, nothing lost, failures never stored, books that balance."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from cope_train.models.identity import completion_key, completion_keys
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.recipe.model_specs import Price
from cope_train.records import Completion, Failure, Message, Request, Sampling
from tests.fakes import FakeModel

PRICE = Price(input=0.15, output=0.60)
HOT = Sampling(temperature=0.8)


def request(problem: str = "p0", indices=(0, 1), sampling=HOT, **fields) -> Request:
    return Request(problem, "solution", (Message("user", "same text"),), sampling, indices, **fields)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite")


def stored(store: Store, speak=lambda r, i: f"{r.problem_id} {i}", price=PRICE, free=False):
    backend = FakeModel("large", speak)
    return StoredModel(backend, store, price, free), backend


def tamper(store: Store, statement: str) -> None:
    """Change what nobody may change: the tables' own guards come off first."""
    for (name,) in list(store.query("SELECT name FROM sqlite_master WHERE type = 'trigger'")):
        store._db.execute(f"DROP TRIGGER {name}")
    store._db.execute(statement)


def test_what_is_stored_is_not_asked_again(store: Store) -> None:
    model, backend = stored(store)
    first = model.complete([request(), request("p1")])
    assert model.complete([request(), request("p1")]) == first
    assert len(backend.asked) == 2
    more = model.complete([request(indices=(0, 1, 2, 3))])
    assert more[0][:2] == first[0]
    assert backend.asked[-1].indices == (2, 3)


def test_equal_requests_of_one_wave_are_asked_once(store: Store) -> None:
    model, backend = stored(store)
    greedy = [request(problem, (0,), Sampling()) for problem in ("p0", "p1")]  # one prompt, one greedy answer
    assert len({outcome.text for (outcome,) in model.complete(greedy)}) == 1
    assert len(backend.asked) == 1


def test_answers_come_in_the_order_asked(store: Store) -> None:
    model, _ = stored(store)
    model.complete([request("p2")])
    found = model.complete([request(p) for p in ("p3", "p2", "p1")])
    assert [row[0].text for row in found] == ["p3 0", "p2 0", "p1 0"]


def test_a_failure_is_a_ledger_row_and_is_asked_again(store: Store) -> None:
    down = True
    model, backend = stored(store, lambda r, i: Failure("503") if down else "up")
    assert model.complete([request()]) == [(Failure("503"), Failure("503"))]
    assert [(call.error, call.usd) for call in store.calls()] == [("503", None)]
    down = False
    assert [outcome.text for outcome in model.complete([request()])[0]] == ["up", "up"]
    assert store.spend().failed == 1


def test_what_arrived_beside_a_failure_is_kept(store: Store) -> None:
    model, backend = stored(store, lambda r, i: Failure("cut") if i == 1 and len(backend.asked) == 1 else f"s{i}")
    model.complete([request()])
    assert [outcome.text for outcome in model.complete([request()])[0]] == ["s0", "s1"]
    assert backend.asked[1].indices == (1,)
    assert [call.error for call in store.calls()] == ["cut", None]
    assert (store.spend().failed, store.spend().balanced) == (1, True)
    tamper(store, "UPDATE calls SET completion_tokens = 7 WHERE error = 'cut'")
    assert not store.spend().balanced


def test_a_cut_or_empty_completion_is_served_not_asked_again(store: Store) -> None:
    model, backend = stored(store, lambda r, i: Completion("", "length", 10, 0))
    model.complete([request()])
    assert model.complete([request()])[0][0].finish == "length"
    assert len(backend.asked) == 1


def test_prompts_are_billed_once_for_all_samples(store: Store) -> None:
    model, _ = stored(store)
    model.complete([request(indices=tuple(range(8)))])
    (call,) = store.calls()
    assert (call.prompt_tokens, call.completion_tokens, call.samples) == (10, 40, 8)
    assert call.usd == (10 * Decimal("0.15") + 40 * Decimal("0.60")) / 1_000_000


@pytest.mark.parametrize("column", ["prompt_tokens", "completion_tokens"])
def test_the_book_balances_and_notices_when_it_does_not(store: Store, column: str) -> None:
    model, _ = stored(store)
    model.complete([request(f"p{i}") for i in range(50)])
    spend = store.spend()
    assert (spend.calls, spend.balanced, spend.unpriced) == (50, True, 0)
    assert spend.usd == 50 * (10 * Decimal("0.15") + 10 * Decimal("0.60")) / 1_000_000
    tamper(store, f"UPDATE calls SET {column} = 7 WHERE id = 3")
    assert not store.spend().balanced


def test_a_call_whose_completions_are_gone_unbalances_the_book(store: Store) -> None:
    model, _ = stored(store)
    model.complete([request()])
    tamper(store, "DELETE FROM completions")
    assert not store.spend().balanced


def test_tokens_that_are_not_told_balance(store: Store) -> None:
    model, _ = stored(store, lambda r, i: Completion("x", "stop", None, None if i else 5))
    model.complete([request()])
    assert [(call.prompt_tokens, call.completion_tokens) for call in store.calls()] == [(None, None)]
    assert store.spend().balanced


@pytest.mark.parametrize(("free", "usd"), [(True, Decimal(0)), (False, None)])
def test_an_unpriced_model_is_free_here_and_unknown_elsewhere(store: Store, free: bool, usd: Decimal | None) -> None:
    model, _ = stored(store, price=None, free=free)
    model.complete([request()])
    assert [call.usd for call in store.calls()] == [usd]


def test_a_store_opened_again_holds_what_was_put(tmp_path: Path) -> None:
    model, _ = stored(Store(tmp_path / "s"))
    model.complete([request()])
    again, backend = stored(Store(tmp_path / "s"))  # without closing the first, as after a kill
    again.complete([request()])
    assert backend.asked == []


def test_the_key_is_the_identity_and_nothing_else() -> None:
    base, identity = request(), {"model": "m"}
    key = completion_key(identity, base, 0)
    for other in (replace(base, seed=1), replace(base, problem_id="x"), replace(base, role="goal")):
        assert completion_key(identity, other, 0) != key
    for name, value in {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_tokens": 9, "stop": ("x",)}.items():
        assert completion_key(identity, replace(base, sampling=replace(HOT, **{name: value})), 0) != key
    assert completion_key(identity, base, 1) != key
    assert completion_key({"model": "n"}, base, 0) != key
    assert completion_key(identity, replace(base, indices=(0, 5), answer_prefix="="), 0) == key
    greedy = replace(base, sampling=Sampling())
    for some in (base, replace(greedy, stage="s"), replace(base, problem_id='p "ä', indices=(3, 1), seed=7)):
        assert completion_keys(identity, some) == [completion_key(identity, some, index) for index in some.indices]
    assert completion_key(identity, greedy, 0) == completion_key(identity, replace(greedy, problem_id="x", seed=9), 0)


@pytest.mark.parametrize(("cheaper", "usd"), [(Decimal("0.5"), "0.000032"), (None, "0.000036")])
def test_cached_prompt_tokens_have_a_price_of_their_own(store: Store, cheaper: Decimal | None, usd: str) -> None:
    said = Completion("x", "stop", 20, 8, cached_tokens=8, reasoning_tokens=3)
    model, _ = stored(store, lambda r, i: said, Price(input=1, output=2, cached_input=cheaper))
    model.complete([request(indices=(0,))])
    (call,) = store.calls()
    assert (call.cached_tokens, call.completion_tokens, call.reasoning_tokens) == (8, 8, 3)
    assert call.usd == Decimal(usd)  # 12 x 1 + 8 x 0.5 or 1 + 8 x 2, per million


def test_this_machines_time_stands_in_a_column_of_its_own(store: Store) -> None:
    backend = FakeModel("small", lambda r, i: Completion("x", "stop", 10, 5, seconds=1.5))
    StoredModel(backend, store, None, True, usd_per_hour=Decimal("3.6")).complete([request()])
    assert [(call.usd, call.compute_usd) for call in store.calls()] == [(0, Decimal("0.003"))]  # two samples
    assert (store.spend().usd, store.spend().compute_usd) == (0, Decimal("0.003"))
