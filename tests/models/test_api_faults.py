"""The API backend through a proxy that spoils calls: all ends complete or honestly failed, and the books balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cope_train.models.api import ApiBackend
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.recipe.model_specs import ApiModel, Price
from cope_train.records import Completion, Failure, Message, Request, Sampling
from tests.models.server import Server, completion
from tests.proxy import FAULTS, Proxy

HOT = Sampling(temperature=0.8, max_tokens=50)


@pytest.fixture
def server() -> Iterator[Server]:
    """Answers at once, with as many choices as are wanted, each told apart by its call."""
    made = Server(lambda body, n: completion([f"{n}-{i}" for i in range(body["n"])], usage=(10, 5 * body["n"])))
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret-word")
    monkeypatch.setattr("cope_train.models.api_limits.BACK_OFF", 0.001)


def backend(proxy: Proxy, **fields) -> ApiBackend:
    values = {"model": "m", "base_url": proxy.url, "api_key_env": "TEST_KEY", "timeout": 1.0} | fields
    return ApiBackend("large", ApiModel(backend="api", **values))


def requests(count: int, samples: int = 2) -> list[Request]:
    return [
        Request(f"p{i}", "goal", (Message("user", f"question {i}"),), HOT, tuple(range(samples)), seed=0)
        for i in range(count)
    ]


def through(server: Server, **fields) -> Proxy:
    return Proxy(server.url.removesuffix("/v1"), **{"rate": 0.3, "retry_after": 0.01, "drip": 0.05} | fields)


def test_the_plan_follows_from_the_seed_and_holds_every_fault() -> None:
    fates = [Proxy("http://x", 0.3, seed=1).fate(i) for i in range(2000)]
    assert fates == [Proxy("http://x", 0.3, seed=1).fate(i) for i in range(2000)]
    assert set(fates) == {"passed", *FAULTS}
    assert 1300 < Counter(fates)["passed"] < 1500


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_mended_by_another_attempt(
    server: Server, impatient: None, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Proxy, "fate", lambda self, number: fault if number == 0 else "passed")
    with through(server) as proxy:
        parts = list(backend(proxy).generate(requests(1)))
    assert len(parts) == len(proxy.calls)
    texts = [outcome.text for _, outcomes in parts for outcome in outcomes if isinstance(outcome, Completion)]
    assert len(texts) == len(set(texts)) == 2
    failed = [outcomes[0].again for _, outcomes in parts if isinstance(outcomes[0], Failure)]
    assert failed == ([] if fault in ("fewer", "drip") else [True])


def test_three_hundred_requests_end_complete_or_failed_and_the_books_balance(
    server: Server, impatient: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "s")
    with through(server) as proxy:
        model = StoredModel(backend(proxy, retries=3), store, Price(input=1, output=2), False)
        outcomes = model.complete(requests(300))
    rows = list(store.calls())
    assert len(rows) == len(proxy.calls)
    assert set(proxy.calls) == {"passed", *FAULTS}
    # Of the calls that were spoiled, those cut down or slowed brought completions all the same.
    brought = Counter(proxy.calls)["passed"] + Counter(proxy.calls)["fewer"] + Counter(proxy.calls)["drip"]
    assert sum(row.error is None for row in rows) == brought
    said = [outcome for each in outcomes for outcome in each if isinstance(outcome, Completion)]
    assert len({outcome.text for outcome in said}) == len(said) >= 590
    assert all(isinstance(outcome, (Completion, Failure)) for each in outcomes for outcome in each)
    spend = store.spend()
    assert spend.balanced
    good = [row for row in rows if row.error is None]
    assert spend.usd == Decimal(sum(row.prompt_tokens + 2 * row.completion_tokens for row in good)) / 1_000_000
    assert sum(outcome.completion_tokens for outcome in said) == sum(row.completion_tokens for row in good)


def test_what_could_not_be_had_says_why_and_is_asked_for_again_next_time(
    server: Server, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Proxy, "fate", lambda self, number: "502" if number % 2 else "passed")
    store = Store(tmp_path / "s")
    with through(server) as proxy:
        first = StoredModel(backend(proxy, retries=0, concurrency=1), store, None, False).complete(requests(10))
        failed = [outcome.message for each in first for outcome in each if isinstance(outcome, Failure)]
        assert set(failed) == {"502: spoiled: 502"}
        assert len(failed) == 10
        proxy.fate = lambda number: "passed"
        second = StoredModel(backend(proxy, retries=0), store, None, False).complete(requests(10))
    assert all(isinstance(outcome, Completion) for each in second for outcome in each)
    assert len(proxy.calls) == 15
