"""The API backend against a server on the loopback that behaves, ignores `n`, fails, or refuses the key."""

from __future__ import annotations

import threading
from collections import Counter
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


def test_a_header_takes_its_secret_from_the_environment(serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PASS", "open-sesame")
    headers = {"X-Api-Key": "Pass ${GATEWAY_PASS}", "X-Team": "plans"}
    backend, server = serve(lambda body, n: (400, {"error": "no open-sesame here"}), headers=headers)
    ((outcome,),) = ask(backend, request(samples=1))
    sent = server.headers[0]
    assert (sent["X-Api-Key"], sent["X-Team"]) == ("Pass open-sesame", "plans")
    assert sent["Authorization"] == "Bearer secret-word"
    assert outcome.message == "400: no <GATEWAY_PASS> here"
    assert "open-sesame" not in str(backend.identity(request()))
    monkeypatch.delenv("GATEWAY_PASS")
    with pytest.raises(NotRunnableHere, match="models.large.headers.X-Api-Key needs .* GATEWAY_PASS"):
        serve(lambda body, n: {}, headers=headers)


def test_every_attempt_is_a_part_and_only_the_last_one_settles(serve: Callable) -> None:
    backend, server = serve(lambda body, n: (500, {"error": {"message": f"down {n}"}}), retries=2)
    found = calls(backend, request(samples=2))
    assert [(len(outcomes), outcomes[0].again, outcomes[0].message) for _, outcomes in found] == [
        (2, True, "500: down 1"),
        (2, True, "500: down 2"),
        (2, False, "500: down 3"),
    ]
    assert len(server.bodies) == 3


def test_attempts_start_anew_with_every_choice_that_came(serve: Callable) -> None:
    backend, server = serve(
        lambda body, n: completion([f"s{n}"]) if n % 2 == 0 else (502, {"error": "gateway"}), retries=1
    )
    (outcomes,) = ask(backend, request(samples=3))
    assert [outcome.text for outcome in outcomes] == ["s2", "s4", "s6"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (completion([]), "no choice"),
        (b'{"id": "x", "choices": [{"index": 0, "mess', "cut off"),
        (b"<html>hello</html>", "cut off"),
        ({"choices": [{"index": 0}]}, "no chat completion"),
        ((408, {"error": "slow"}), "408: slow"),
        ((409, {"error": {"message": "lock"}}), "409: lock"),
        ((429, {"detail": "rate"}), "429: rate"),
        ((429, {"error": {"message": "Rate limit. Pay at https://x/billing for more."}}), "429: Rate limit."),
        ((529, {"error": {"message": "overloaded"}}), "529: overloaded"),
    ],
)
def test_passing_trouble_fails_its_call_and_is_tried_again(serve: Callable, reply: object, words: str) -> None:
    backend, server = serve(lambda body, n: reply if n == 1 else completion(["fine"]), retries=1)
    (_, first), (_, second) = calls(backend, request(samples=1))
    assert first[0].again
    assert words in first[0].message
    assert second[0].text == "fine"


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_another_attempt_cannot_mend_is_not_tried_again(serve: Callable, status: int) -> None:
    refusal = (status, {"error": {"message": "maximum context length is 4096 tokens"}})
    backend, server = serve(lambda body, n: refusal if n == 2 else completion(["fine"]), concurrency=1, retries=3)
    first, second, third = ask(backend, *[request(f"p{i}", 1) for i in range(3)])
    assert first[0].text == third[0].text == "fine"
    assert second[0].message == f"{status}: maximum context length is 4096 tokens"
    assert len(server.bodies) == 3


def test_a_time_out_is_of_the_whole_call_and_tried_again(serve: Callable) -> None:
    release = threading.Event()

    def reply(body, n):
        if n == 1:
            release.wait(10)
        return completion(["fine"])

    backend, _ = serve(reply, timeout=1.0, retries=1)
    (_, first), (_, second) = calls(backend, request(samples=1))
    release.set()
    assert (first[0].message, first[0].again) == ("no answer within 1 seconds", True)
    assert second[0].text == "fine"


def test_all_calls_wait_when_the_server_asks_to_be_left_alone(serve: Callable) -> None:
    backend, server = serve(
        lambda body, n: (429, {"error": "rate"}, {"Retry-After": "7"}) if n == 1 else completion(["x"]),
        retries=1,
        concurrency=1,
    )
    asked = []
    wait = backend._limits.wait

    def waited() -> float:  # what would be waited for is written down instead
        asked.append(wait())
        return 0.0

    backend._limits.wait = waited
    assert len(ask(backend, request("p0", 1), request("p1", 1))) == 2
    assert asked[0] <= 0
    assert all(6 < seconds <= 7 for seconds in asked[1:])


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            (401, {"error": {"message": "bad key secret-word"}}),
            ["bad key <key>", "TEST_KEY", "models.large.api_key_env"],
        ),
        ((403, {"error": {"message": "sk-proj-12***89 may not"}}), ["<key> may not", "models.large.api_key_env"]),
        ((402, {"error": {"message": "pay first"}}), ["pay first", "nothing left to spend"]),
        ((429, {"error": {"message": "quota", "code": "insufficient_quota"}}), ["nothing left to spend"]),
        ((404, {"error": {"message": "The model `m` does not exist"}}), ["change models.large.model"]),
        ((400, {"detail": "Server is pinned to 'a'; requested 'm'."}), ["change models.large.model"]),
        ((404, {"detail": "Not Found " * 100}), ["change models.large.base_url", "/v1"]),
        ((503, {"error": "maintenance"}, {"Retry-After": "86400"}), ["24.0 hours", "the same command goes on"]),
        ((405, {"detail": "Method Not Allowed"}), ["change models.large.base_url"]),
        (completion(["x"], model="other"), ["answered as other", "models.large.answers_as"]),
    ],
)
def test_what_no_request_can_pass_stops_everything_and_names_the_field(
    serve: Callable, reply: object, words: list
) -> None:
    backend, server = serve(lambda body, n: reply, concurrency=2, retries=1)
    found = []
    with pytest.raises(ServerError) as error:
        found.extend(backend.generate([request(f"p{i}", 1) for i in range(50)]))
    message = str(error.value)
    assert message.startswith(f"model large: m at {server.url}/: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    assert error.value.exit_code == 4
    assert len(server.bodies) <= 8  # two attempts of the four requests that are open at a time


def test_the_call_that_is_refused_is_reported_before_the_error(serve: Callable) -> None:
    backend, _ = serve(lambda body, n: (401, {"error": "no"}), concurrency=1)
    found = []
    with pytest.raises(ServerError):
        for part in backend.generate([request("p0", 2), request("p1", 2)]):
            found.append(part)
    assert found == [(0, (Failure("401: no"),) * 2)]


def test_a_server_that_is_not_there_stops_everything_after_the_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "none")
    monkeypatch.setattr("cope_train.models.api_limits.BACK_OFF", 0.001)
    spec = ApiModel(backend="api", model="m", base_url="http://127.0.0.1:9/v1", api_key_env="TEST_KEY", retries=2)
    found = []
    with pytest.raises(ServerError, match="cannot be reached.*models.large.base_url") as error:
        for part in ApiBackend("large", spec).generate([request(f"p{i}", 1) for i in range(500)]):
            found.append(part)
    assert error.value.exit_code == 4
    assert len(found) < 50
    assert max(Counter(position for position, _ in found).values()) == 3


def test_a_server_that_goes_away_later_is_each_requests_own_failure(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["fine"]), concurrency=1)
    assert ask(backend, request("p0", 1))[0][0].text == "fine"
    server.close()
    assert [type(outcomes[0]) for outcomes in ask(backend, request("p1", 1), request("p2", 1))] == [Failure] * 2


def test_a_server_that_fails_whatever_it_is_asked_is_given_up_for_all(serve: Callable) -> None:
    backend, server = serve(lambda body, n: (500, {"error": "out of order"}), concurrency=1, retries=0)
    with pytest.raises(ServerError, match="out of order"):
        ask(backend, *[request(f"p{i}", 1) for i in range(100)])
    assert len(server.bodies) == 20


def test_nothing_is_sent_once_go_on_says_no(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion([f"s{n}"]), concurrency=4)
    found = calls(backend, *[request(f"p{i}", 2) for i in range(50)], go_on=lambda: len(server.bodies) < 10)
    assert len(found) == len(server.bodies)
    assert 10 <= len(found) <= 13


def test_a_request_between_attempts_does_not_hold_up_the_end(serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cope_train.models.api_caller.back_off", lambda attempt: 3600.0)
    failed = threading.Event()

    def reply(body, n):
        if body["messages"][0]["content"] == "p0":
            failed.set()
            return 500, {"error": "down"}
        failed.wait(10)
        return completion(["x"])

    backend, server = serve(reply, concurrency=2, retries=5)
    found = dict(calls(backend, *[request(f"p{i}", 1) for i in range(9)], go_on=lambda: len(server.bodies) < 6))
    assert found[0][0].again
    assert len(found) == len(server.bodies)


def test_what_was_taken_is_counted_before_more_is_sent(serve: Callable) -> None:
    # A budget of ten calls, counted by whoever takes the parts: it is passed by no more than what is under way.
    backend, server = serve(lambda body, n: completion(["x"]), concurrency=8)
    taken = []
    for part in backend.generate((request(f"p{i}", 1) for i in range(500)), lambda: len(taken) < 100):
        taken.append(part)
    assert 100 <= len(server.bodies) < 108
    assert len(taken) == len(server.bodies)


def test_requests_are_drawn_as_there_is_room_and_in_the_callers_thread(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["x"]), concurrency=3)
    drawn, threads = 0, set()

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            threads.add(threading.get_ident())
            yield request(f"p{drawn}", 1)

    for taken, _ in enumerate(backend.generate(endless()), 1):
        assert drawn - taken <= 6
        if taken == 60:
            break
    assert threads == {threading.get_ident()}
    assert not [thread for thread in threading.enumerate() if thread.name == "api calls"]


def test_what_breaks_the_source_is_raised_after_what_was_sent_is_there(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["x"]), concurrency=4)

    def source():
        yield from (request(f"p{i}", 1) for i in range(2))
        raise RuntimeError("no more problems")

    found = []
    with pytest.raises(RuntimeError, match="no more problems"):
        for part in backend.generate(source()):
            found.append(part)
    assert sorted(position for position, _ in found) == [0, 1]


def test_what_breaks_in_a_caller_is_raised_and_hangs_nobody(serve: Callable) -> None:
    backend, _ = serve(lambda body, n: completion(["x"]))
    with pytest.raises(ZeroDivisionError):
        calls(backend, request(), go_on=lambda: 1 // 0)


def test_no_request_is_no_call(serve: Callable) -> None:
    backend, server = serve(lambda body, n: completion(["x"]))
    assert calls(backend) == []
    assert server.bodies == []
