"""The verb `store`: what it tells, and an export that the recorded backend answers from as the model did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cope_train.errors import UserError
from cope_train.models.recorded import RecordedBackend
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.recipe.model_specs import Price, RecordedModel
from cope_train.records import Failure, Message, Request, Sampling
from cope_train.steps.store import export, find, lines
from tests.fakes import FakeModel


def request(problem: str, role: str = "solution", prompt: str = "q", seed: int = 0) -> Request:
    return Request(problem, role, (Message("user", prompt),), Sampling(temperature=0.5), (0, 1, 2), seed)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three samples of two roles for two problems; one call failed."""
    store = Store(tmp_path / "store.sqlite", "run")
    large = FakeModel("large", lambda r, i: f'{r.problem_id} {r.role}\n"{i}" ä')
    model = StoredModel(large, store, Price(input=1, output=2), False)
    model.complete([request(p, role) for p in ("p0", "p1") for role in ("goal", "solution")])
    failing = StoredModel(FakeModel("small", lambda r, i: Failure("503")), store, None, True)
    failing.complete([request("p0")])
    store.close()
    return find(tmp_path / "store.sqlite")


def test_it_tells_counts_spend_and_failures(store: Store) -> None:
    told = "\n".join(lines(store))
    assert "12 completions, calls of 1 runs" in told
    assert "large, goal: 6 completions by 2 calls (0 failed, 0 retried), 20 prompt and 30 completion tokens" in told
    assert "small, solution: 0 completions by 1 calls (1 failed, 0 retried)" in told
    assert "spend: 0.000160 USD for 5 calls" in told  # 4 x (10 + 2 x 15) per million
    assert "the ledger balances" in told


def test_an_export_is_read_back_as_the_model_spoke(store: Store, tmp_path: Path) -> None:
    assert export(store, tmp_path / "said.jsonl", "large") == 12
    recorded = RecordedBackend("large", RecordedModel(backend="recorded", path=str(tmp_path / "said.jsonl")))
    for problem in ("p0", "p1"):
        for role in ("goal", "solution"):
            ((_, outcomes),) = recorded.generate([request(problem, role)])
            assert [outcome.text for outcome in outcomes] == [f'{problem} {role}\n"{i}" ä' for i in range(3)]


def test_samples_of_other_prompts_and_seeds_are_numbered_through(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    model = StoredModel(FakeModel("m", lambda r, i: f"{r.messages[0].content}{r.seed}{i}"), store, None, True)
    model.complete([request("p", prompt="a"), request("p", prompt="b"), request("p", prompt="a", seed=1)])
    assert export(store, tmp_path / "said.jsonl") == 9
    rows = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(9))
    assert {row["completion"] for row in rows} == {f"{p}{i}" for p in ("a0", "b0", "a1") for i in range(3)}
    RecordedBackend("m", RecordedModel(backend="recorded", path=str(tmp_path / "said.jsonl")))


def test_which_model_and_which_store_must_be_clear(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="several models; name one with --model: large, small"):
        export(store, tmp_path / "x")
    with pytest.raises(UserError, match="no model middle"):
        export(store, tmp_path / "x", "middle")
    with pytest.raises(UserError, match="no store there"):
        find(tmp_path / "nowhere.sqlite")
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 99)
    with pytest.raises(UserError, match="cannot be opened as a store"):
        find(tmp_path / "text")
