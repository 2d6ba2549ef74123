"""The API backend against a server on the loopback that behaves, ignores `n`, fails, or refuses the key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cope_train.errors import NotRunnableHere, ServerError
from cope_train.models import api_errors
from cope_train.models.api import ApiBackend
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.recipe.model_specs import ApiModel, Price
from cope_train.records import Failure, Message, Request, Sampling
from tests.models.server import Server, completion

HOT = Sampling(temperature=0.8, max_tokens=50, top_p=0.9, top_k=20, stop=("END",))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    servers = []
    monkeypatch.setenv("TEST_KEY", "secret-word")
    monkeypatch.setattr("cope_train.models.api_limits.BACK_OFF", 0.001)

    def start(reply: Callable, **fields) -> tuple[ApiBackend, Server]:
        servers.append(Server(reply))
        values = {"model": "m", "base_url": servers[-1].url, "api_key_env": "TEST_KEY", "retries": 0} | fields
        return ApiBackend("large", ApiModel(backend="api", **values)), servers[-1]

    yield start
    for server in servers:
        server.close()


def request(problem: str = "p0", samples: int = 3, sampling: Sampling = HOT) -> Request:
    return Request(problem, "guideline", (Message("user", problem),), sampling, tuple(range(samples)))


def calls(backend: ApiBackend, *requests: Request, **rest) -> list:
    """Every call as it came: (position, outcomes)."""
    return list(backend.generate(requests, **rest))


def again(outcomes: tuple) -> bool:
    return all(isinstance(outcome, Failure) and outcome.again for outcome in outcomes)


def ask(backend: ApiBackend, *requests: Request) -> list:
    """What each request came to in the end."""
    found = [()] * len(requests)
    for position, outcomes in calls(backend, *requests):
        if not again(outcomes):
            found[position] += outcomes
    return found


def test_one_call_brings_all_samples_and_sends_the_whole_sampling_set(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["a", "b", "c"], usage=(7, 10)), extra_body={"x": 1})
    (outcomes,) = ask(backend, request())
    assert [o.text for o in outcomes] == ["a", "b", "c"]
    assert {o.prompt_tokens for o in outcomes} == {7}
    assert sum(o.completion_tokens for o in outcomes) == 10
    (body,) = server.bodies
    seed = body.pop("seed")
    assert isinstance(seed, int)
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "p0"}],
        "temperature": 0.8,
        "top_p": 0.9,
        "max_tokens": 50,
        "n": 3,
        "stop": ["END"],
        "top_k": 20,
        "x": 1,
    }


def test_a_server_that_ignores_n_is_asked_for_the_rest(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion([f"s{n}"], usage=(7, 4)))
    (outcomes,) = ask(backend, request())
    assert [o.text for o in outcomes] == ["s1", "s2", "s3"]
    assert [body["n"] for body in server.bodies] == [3, 2, 1]
    assert len({body["seed"] for body in server.bodies}) == 3  # or a server that honours seeds repeats itself


def test_every_call_is_a_row_of_the_ledger_and_bills_its_prompt(serve: Callable, tmp_path: Path) -> None:
    backend, server = serve(lambda body, n: completion([f"s{n}"], usage=(100, 5)))
    store, shown = Store(tmp_path / "s"), []
    model = StoredModel(backend, store, Price(input=1, output=2), False, lambda *progress: shown.append(progress[1:]))
    (outcomes,) = model.complete([request(samples=4)])
    assert [outcome.text for outcome in outcomes] == ["s1", "s2", "s3", "s4"]
    assert len(server.bodies) == 4
    assert [(call.samples, call.prompt_tokens, call.completion_tokens) for call in store.calls()] == [(1, 100, 5)] * 4
    assert (store.spend().usd, store.spend().balanced) == (Decimal(4 * 110) / 1_000_000, True)
    assert shown[0] == (0, 1)
    assert shown[-1] == (1, 1)


def test_cut_and_empty_replies_are_completions(serve: Callable) -> None:
    backend, _ = serve(lambda body, n: completion([""], finish="length"))
    ((outcome,),) = ask(backend, request(samples=1))
    assert (outcome.text, outcome.finish, outcome.completion_tokens) == ("", "length", None)


def test_log_probabilities_are_summed_where_the_server_gives_them(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["ab"], usage=(7, 2), logprobs=[-0.5, -1.0]), logprobs=True)
    ((outcome,),) = ask(backend, request(samples=1))
    assert (outcome.logprob, outcome.completion_tokens) == (-1.5, 2)
    assert server.bodies[0]["logprobs"] is True


@pytest.mark.parametrize(("total", "shares"), [(500, (125, 375)), (8, (2, 6)), (None, (2, 6))])
def test_usage_is_the_total_and_log_probabilities_split_it(serve: Callable, total: int | None, shares: tuple) -> None:
    reply = completion(["a", "b"], usage=total and (7, total), logprobs=[-0.5] * 2)
    reply["choices"][1]["logprobs"]["content"] *= 3
    backend, _ = serve(lambda body, n: reply, logprobs=True)
    (outcomes,) = ask(backend, request(samples=2))
    assert tuple(outcome.completion_tokens for outcome in outcomes) == shares
    assert [outcome.logprob for outcome in outcomes] == [-1.0, -3.0]


def test_a_bad_request_is_its_own_failure_with_the_servers_words(serve: Callable) -> None:
    def reply(body, n):
        return (400, {"error": {"message": "context too long"}}) if body["messages"][0]["content"] == "p1" else good

    good = completion(["fine"])
    backend, _ = serve(reply)
    first, second, third = ask(backend, request("p0", 1), request("p1", 1), request("p2", 1))
    assert first[0].text == third[0].text == "fine"
    assert isinstance(second[0], Failure)
    assert "context too long" in second[0].message


def test_what_a_first_call_brought_survives_the_failure_of_the_second(serve: Callable) -> None:
    backend, _ = serve(lambda body, n: completion(["paid"]) if n == 1 else (500, {"error": {"message": "down"}}))
    ((first, second),) = ask(backend, request(samples=2))
    assert first.text == "paid"
    assert isinstance(second, Failure)


def test_passing_trouble_is_tried_again(serve: Callable) -> None:
    backend, server = serve(
        lambda body, n: completion(["up"]) if n > 1 else (503, {"error": {"message": "busy"}}), retries=2
    )
    ((outcome,),) = ask(backend, request(samples=1))
    assert outcome.text == "up"
    assert len(server.bodies) == 2


def test_a_refused_key_stops_at_once_and_is_not_shown(serve: Callable) -> None:
    reply = (401, {"error": {"message": "bad key secret-word"}})
    backend, server = serve(lambda body, n: reply, concurrency=1)
    with pytest.raises(ServerError, match="bad key <key>") as error:
        ask(backend, *[request(f"p{i}", 1) for i in range(20)])
    assert error.value.exit_code == 4
    assert len(server.bodies) < 20


def test_what_other_calls_bring_beside_a_refusal_is_kept(serve: Callable, tmp_path: Path, monkeypatch) -> None:
    others, refused = threading.Barrier(3), threading.Event()

    def reply(body, n):
        others.wait(10)  # all three are in flight
        if body["messages"][0]["content"] == "p1":
            return 401, {"error": {"message": "bad key"}}
        refused.wait(10)
        return completion(["paid"], usage=(7, 4))

    # The others are answered only once the client has read the refusal.
    monkeypatch.setattr(
        "cope_train.models.api_caller.stopped", lambda *found: refused.set() or api_errors.stopped(*found)
    )
    backend, _ = serve(reply, concurrency=3)
    store = Store(tmp_path / "s")
    with pytest.raises(ServerError, match="bad key"):
        StoredModel(backend, store, None, False).complete([request(f"p{i}", 1) for i in range(3)])
    assert sorted((call.problem_id, bool(call.error)) for call in store.calls()) == [
        ("p0", False),
        ("p1", True),
        ("p2", False),
    ]


def test_no_more_calls_at_a_time_than_the_recipe_allows(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["x"]), concurrency=2)
    assert len(ask(backend, *[request(f"p{i}", 1) for i in range(12)])) == 12
    assert 1 <= server.most_open <= 2


def test_a_missing_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(NotRunnableHere, match="TEST_KEY"):
        ApiBackend("large", ApiModel(backend="api", model="m", api_key_env="TEST_KEY"))
