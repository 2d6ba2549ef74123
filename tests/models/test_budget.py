"""Budgets: counted from the ledger, never passed by more than what was under way, and the same command goes on."""

from __future__ import annotations

import queue
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from cope_train.errors import BudgetReached, UserError
from cope_train.models.budget import Budget
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.recipe.model_specs import Price
from cope_train.recipe.schema import Limits
from cope_train.records import Completion, Message, Request, Sampling
from tests.fakes import FakeModel

PRICE = Price(input=100, output=0)  # a call of ten prompt tokens is 0.001 USD
CONNECTIONS = 64


class Parallel(FakeModel):
    """64 calls at a time, each asked for before it is sent, and under way until its answer is taken."""

    sent = 0

    def generate(self, requests, go_on=lambda: True):
        source, arrived, lock = enumerate(requests), queue.Queue(), threading.Lock()
        slots = threading.Semaphore(CONNECTIONS)

        def connection() -> None:
            while slots.acquire():
                with lock:
                    item = next(source, None)
                    if item is None or not go_on():
                        break
                    self.sent += 1
                arrived.put((item[0], self.answer(item[1])))
            slots.release()
            arrived.put(None)

        threads = [threading.Thread(target=connection) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for _ in threads:
            while (item := arrived.get()) is not None:
                yield item
                slots.release()


def requests(count: int = 1000) -> list[Request]:
    return [Request(f"p{i}", "goal", (Message("user", f"{i}"),), Sampling(temperature=1.0)) for i in range(count)]


def bought(store: Store, *caps: tuple[str, Limits], speak=lambda r, i: "x", verb="collect") -> tuple:
    budget = Budget(caps, verb, {"large"})
    budget.load(store.calls())
    backend = Parallel("large", speak)
    return StoredModel(backend, store, PRICE, False, budget=budget), backend


def test_a_cap_of_calls_is_never_passed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "run")
    model, backend = bought(store, ("budget", Limits(calls=300)))
    with pytest.raises(BudgetReached, match=r"300 of 300 calls \(budget\) spent\. 700 requests .*goals by large.*0\.7"):
        model.complete(requests())
    assert backend.sent == store.spend().calls == 300  # all that was sent is stored


def test_a_cap_of_usd_is_passed_by_no_more_than_what_was_under_way(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "run")
    model, _ = bought(store, ("budget", Limits(usd=Decimal("0.3"))))
    with pytest.raises(BudgetReached, match=r"of 0\.3 USD \(budget\) spent"):
        model.complete(requests())
    assert Decimal("0.3") - CONNECTIONS * Decimal("0.001") <= store.spend().usd
    assert store.spend().usd <= Decimal("0.3") + CONNECTIONS * Decimal("0.001")


def test_the_same_command_with_a_higher_budget_goes_on(tmp_path: Path) -> None:
    for cap, spent in ((300, 300), (300, 300), (900, 900), (1000, 1000)):
        store = Store(tmp_path / "s", "run")
        model, backend = bought(store, ("budget", Limits(calls=cap)))
        if cap < 1000:
            with pytest.raises(BudgetReached):
                model.complete(requests())
        else:
            assert len(model.complete(requests())) == 1000
        assert store.spend().calls == spent
        store.close()
    # What is stored is served whatever the budget.
    model, backend = bought(Store(tmp_path / "s", "run"), ("budget", Limits(calls=0)))
    assert len(model.complete(requests())) == 1000
    assert backend.sent == 0


def test_what_is_stored_is_served_and_the_rest_counted_when_nothing_may_be_bought(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "run")
    bought(store)[0].complete(requests()[400:])
    model, backend = bought(store, ("budget", Limits(calls=600)))
    served = []
    with pytest.raises(BudgetReached, match=" 400 requests"):
        for asked, _ in model.stream(requests()):
            served.append(asked.problem_id)
    assert len(served) == 600
    assert backend.sent == 0


def test_each_verb_has_a_cap_of_its_own_and_another_runs_calls_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "run")
    bought(Store(tmp_path / "s", "other"))[0].complete(requests(50))
    caps = ("budget", Limits(calls=100)), ("budget.collect", Limits(calls=30))
    with pytest.raises(BudgetReached, match=r"30 of 30 calls \(budget.collect\)"):
        bought(store, *caps)[0].complete(requests())
    with pytest.raises(BudgetReached, match=r"100 of 100 calls \(budget\)"):
        bought(store, *caps[:1], verb="evaluate")[0].complete(requests())
    assert store.spend().calls == 100


def test_what_costs_nothing_does_not_count_and_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "run")
    budget = Budget([("budget", Limits(calls=10))], "collect", {"large"})
    small = StoredModel(Parallel("small", lambda r, i: "x"), store, None, True, budget=budget.free())
    assert len(small.complete(requests(100))) == 100
    budget.load(store.calls())
    large = StoredModel(Parallel("large", lambda r, i: "x"), store, PRICE, False, budget=budget)
    with pytest.raises(BudgetReached, match="10 of 10 calls"):
        large.complete(requests(100))
    assert len(small.complete(requests(200))) == 200


def test_calls_under_way_end_with_their_stream(tmp_path: Path) -> None:
    budget = Budget([("budget", Limits(calls=2))])
    assert [budget.go_on(), budget.go_on()] == [True, True]
    budget.landed()  # neither brought a row, as when a call could not be sent
    assert budget.go_on()


def test_a_server_that_hides_its_usage_ends_a_budget_in_usd(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "run")
    model, backend = bought(store, ("budget", Limits(usd=Decimal(1))), speak=lambda r, i: Completion("x", "stop"))
    with pytest.raises(UserError, match=r"large does not tell.*budget\.calls"):
        model.complete(requests())
    assert 0 < backend.sent <= 2 * CONNECTIONS
    fine, _ = bought(
        Store(tmp_path / "t", "run"), ("budget", Limits(calls=9999)), speak=lambda r, i: Completion("x", "stop")
    )
    assert len(fine.complete(requests())) == 1000
