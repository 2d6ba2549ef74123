"""Plans from a real server: `transformers serve` on the lab's small model, which answers one choice whatever `n` says.

Without continuous batching, which would give every request the temperature of the first.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from cope_train.errors import ServerError
from cope_train.models.api import ApiBackend
from cope_train.models.folders import resolve
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.plans import planset
from cope_train.recipe.model_specs import ApiModel, Price
from cope_train.records import Completion, Failure, Message, Request, Sampling
from tests.e2e.conftest import TINY
from tests.proxy import Proxy

pytest.importorskip("fastapi", reason="needs transformers[serving]")
SMALL = str(resolve("lab/small"))
# Hot, so that equal choices would be no chance.
HOT = Sampling(temperature=2.0, max_tokens=24)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that is up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    words = [Path(sys.executable).with_name("transformers"), "serve", SMALL, "--device", "cpu"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*words, "--host", "127.0.0.1", "--port", str(port)], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        while not healthy(address):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(autouse=True)
def a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_KEY", "none")
    monkeypatch.setattr("cope_train.models.api_limits.BACK_OFF", 0.01)


def backend(address: str, model: str = SMALL, **fields) -> ApiBackend:
    return ApiBackend(
        "large", ApiModel(backend="api", model=model, base_url=f"{address}/v1", api_key_env="SERVE_KEY", **fields)
    )


def request(problem: str = "p0", samples: int = 8) -> Request:
    return Request(problem, "goal", (Message("user", f"How many eggs has {problem}?"),), HOT, tuple(range(samples)))


def test_eight_samples_are_eight_choices_of_their_own_billed_as_the_server_says(server: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    model = StoredModel(backend(server), store, Price(input=1, output=2), False)
    (said,) = model.complete([request()])
    assert all(isinstance(each, Completion) for each in said)
    assert len({each.text for each in said}) >= 7
    rows = list(store.calls())
    assert [row.samples for row in rows] == [1] * 8
    assert len({row.prompt_tokens for row in rows}) == 1
    assert all(0 < row.completion_tokens <= HOT.max_tokens for row in rows)
    assert {each.finish for each in said if each.completion_tokens < HOT.max_tokens} <= {"stop"}
    assert store.spend().usd * 1_000_000 == sum(row.prompt_tokens + 2 * row.completion_tokens for row in rows)
    assert store.spend().balanced


def test_a_greedy_request_says_what_the_local_model_says(server: str, tmp_path: Path) -> None:
    from cope_train.models import backend as any_backend
    from cope_train.recipe.model_specs import LocalModel

    greedy = Request("p0", "goal", (Message("user", "Ann has 3 eggs and buys 4."),), Sampling(max_tokens=24))
    local = any_backend("small", LocalModel(backend="local", path="lab/small"))
    ((_, (here,)),) = local.generate([greedy])
    ((_, (there,)),) = backend(server).generate([greedy])
    assert there.text.strip() == here.text.strip()
    assert (there.prompt_tokens, there.finish) == (here.prompt_tokens, here.finish)


def test_plans_collected_by_api_are_of_the_form_of_local_ones(cope: Callable, server: str) -> None:
    served = f"{{backend: api, model: {SMALL}, base_url: '{server}/v1', api_key_env: SERVE_KEY, concurrency: 4}}"
    small = ("--limit", "3", "plans.keep.samples=1")
    sets = {}
    for name, large in {"local": "{backend: local, path: lab/small}", "api": served}.items():
        typed = cope("collect", TINY, "--out", name, *small, f"models.large={large}")
        assert typed.code == 0, typed.err
        sets[name] = planset.load(Path(name) / "plans")
    forms = {
        name: [
            (plan.problem_id, plan.kind, plan.index, plan.prompt_tokens, plan.prompt_hash, plan.planner)
            for plan in plans
        ]
        for name, plans in sets.items()
    }
    assert forms["api"] == forms["local"]
    assert len(forms["api"]) == 12
    for ours, theirs in zip(sets["local"], sets["api"], strict=True):
        kinds = [{key: type(value) for key, value in asdict(plan).items()} for plan in (ours, theirs)]
        assert kinds[0] == kinds[1]


def test_its_answers_come_through_a_proxy_that_spoils_a_third(server: str, tmp_path: Path, pytestconfig) -> None:
    count = pytestconfig.getoption("requests")
    store = Store(tmp_path / "s")
    with Proxy(server, rate=0.3, seed=4, retry_after=0.01, drip=0.1) as proxy:
        model = StoredModel(backend(proxy.url.removesuffix("/v1"), timeout=2.0, concurrency=4), store, None, False)
        said = model.complete([request(f"p{i}", 2) for i in range(count)])
    failed = [outcome.message for each in said for outcome in each if isinstance(outcome, Failure)]
    print(f"{count} requests, {len(proxy.calls)} calls, {len(failed)} samples failed: {set(failed)}")
    assert len(failed) <= count // 100, failed
    assert len(list(store.calls())) == len(proxy.calls) > 2 * count
    assert store.spend().balanced


def test_a_model_that_it_does_not_serve_is_said_in_its_words(server: str) -> None:
    with pytest.raises(ServerError, match="pinned to .*change models.large.model") as error:
        list(backend(server, model="another").generate([request()]))
    assert not re.search(r"\n", str(error.value))
