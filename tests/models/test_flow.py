"""Leases, group commits and streaming: two buyers, dead owners, kills, and memory that holds windows only."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cope_train.errors import UserError
from cope_train.models import flow, leases
from cope_train.models import store as store_module
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.records import Completion, Failure, Message, Request, Sampling
from tests.fakes import FakeModel

HOT = Sampling(temperature=0.8)


def request(problem: str, indices=(0,)) -> Request:
    return Request(problem, "solution", (Message("user", problem),), HOT, indices)


def model(store: Store, speak=lambda r, i: r.problem_id, **options) -> tuple[StoredModel, FakeModel]:
    backend = FakeModel("large", speak)
    return StoredModel(backend, store, None, True, **options), backend


def bought_twice(path: Path) -> int:
    with sqlite3.connect(path) as db:
        return db.execute("SELECT COUNT(*) - COUNT(DISTINCT key) FROM completions").fetchone()[0]


class Lazy(FakeModel):
    """Takes one request at a time, as a server's client with one connection does."""

    def generate(self, requests, go_on=lambda: True):
        for position, asked in enumerate(requests):
            if not go_on():
                return
            yield position, self.answer(asked)


def test_a_new_file_that_another_is_opening_is_waited_for() -> None:
    """SQLite refuses at once where two connections wait for each other, whatever its time-out."""

    class Busy:
        refusals = 2

        def execute(self, statement: str) -> None:
            if self.refusals:
                self.refusals -= 1
                raise sqlite3.OperationalError("database is locked")

    busy = Busy()
    store_module._write_ahead(busy)
    assert busy.refusals == 0


def test_two_models_on_one_store_never_buy_the_same(tmp_path: Path) -> None:
    path, meet = tmp_path / "s", threading.Barrier(2)
    found: dict[int, list] = {}
    asked = []

    def buy(number: int) -> None:
        store = Store(path)

        def speak(r: Request, i: int) -> str:
            if not backend.asked[1:]:
                meet.wait(30)  # both have begun, so each holds leases that the other wants
            return f"{number}"

        backend = Lazy("large", speak)
        requests = [request(f"p{i if number else 1999 - i}") for i in range(2000)]
        found[number] = StoredModel(backend, store, None, True).complete(requests)
        asked.extend(r.problem_id for r in backend.asked)
        store.close()

    threads = [threading.Thread(target=buy, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == len(set(asked)) == 2000
    assert found[0] == found[1][::-1]
    assert bought_twice(path) == 0


def test_what_another_is_buying_is_waited_for_and_what_it_could_not_get_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Store(tmp_path / "s"), Store(tmp_path / "s")
    there, backend = model(one, lambda r, i: Failure("503"))
    looked = threading.Event()
    monkeypatch.setattr(flow.time, "sleep", lambda seconds: looked.set())
    (outcome,) = there.stream([request("p")])  # a failure gives the lease back
    assert isinstance(outcome[1][0], Failure)
    from cope_train.models.identity import completion_key

    key = completion_key(backend.identity(request("p")), request("p"), 0)
    assert one.claim([key]) == ({}, set())
    assert two.claim([key]) == ({}, {key})
    waiting, other = model(two)
    thread = threading.Thread(target=lambda: waiting.complete([request("p")]))
    thread.start()
    assert looked.wait(30)
    assert other.asked == []
    one.release([key])
    thread.join(30)
    assert [r.problem_id for r in other.asked] == ["p"]


@pytest.mark.parametrize("why", ["gone", "another has its number", "silent", "elsewhere and silent", "unknown"])
def test_leases_of_the_dead_are_taken_over(tmp_path: Path, why: str) -> None:
    store, me = Store(tmp_path / "s"), psutil.Process()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = leases.socket.gethostname()
    now = leases.time.time()
    owner = {
        "gone": (host, gone.pid, now, now),
        "another has its number": (host, me.pid, me.create_time() - 100, now),
        "silent": (host, me.pid, me.create_time(), now - 2 * leases.SILENCE),
        "elsewhere and silent": ("elsewhere", 1, now, now - 2 * leases.SILENCE),
    }.get(why)
    if owner:
        store._db.execute("INSERT INTO owners VALUES ('them', ?, ?, ?, ?)", owner)
    store._db.execute("INSERT INTO leases VALUES ('k', 'them')")
    assert store.claim(["k"]) == ({}, set())


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_leases_of_the_living_hold(tmp_path: Path, where: str) -> None:
    store, me = Store(tmp_path / "s"), psutil.Process()
    host = leases.socket.gethostname() if where == "here" else "elsewhere"
    owner = (host, me.pid, me.create_time(), leases.time.time())
    store._db.execute("INSERT INTO owners VALUES ('them', ?, ?, ?, ?)", owner)
    store._db.execute("INSERT INTO leases VALUES ('k', 'them')")
    assert store.claim(["k", "l"]) == ({}, {"k"})


def test_the_store_only_grows(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    model(store)[0].complete([request("p")])
    for table in ("calls", "completions"):
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id + 1"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                store._db.execute(statement)


def test_leases_end_with_the_stream_and_with_the_store(tmp_path: Path) -> None:
    def breaks(r: Request, i: int) -> str:
        raise UserError("wrong key")

    store = Store(tmp_path / "s")
    with pytest.raises(UserError, match="wrong key"):
        model(store, breaks)[0].complete([request("p")])
    assert list(store.query("SELECT * FROM leases")) == []
    store.claim(["k"])
    store.close()
    again = Store(tmp_path / "s")
    assert list(again.query("SELECT * FROM leases")) == list(again.query("SELECT * FROM owners")) == []


def test_nobody_sees_a_completion_before_it_is_on_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    lazy = StoredModel(Lazy("large", lambda r, i: r.problem_id), store, None, True)
    seen = 0
    for asked, _ in lazy.stream(request(f"p{i}") for i in range(500)):
        with sqlite3.connect(tmp_path / "s") as db:
            said = db.execute("SELECT COUNT(*) FROM calls WHERE problem_id = ?", (asked.problem_id,)).fetchone()
        assert said == (1,)
        seen += 1
    assert seen == 500


def test_what_was_handed_over_survives_a_kill(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from cope_train.models import store as store_module
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from tests.models.test_flow import Lazy, request
model = StoredModel(Lazy("large", lambda r, i: r.problem_id), Store(Path(sys.argv[1])), None, True)
for seen, _ in enumerate(model.stream(request(f"p{i}") for i in range(1000)), start=1):
    if seen == 150:
        print(seen, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "s"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "150\n"), done.stderr
    store = Store(tmp_path / "s")
    again, backend = model(store)
    kept = sum(
        1 for _, (outcome,) in again.read(request(f"p{i}") for i in range(1000)) if outcome.__class__ is Completion
    )
    assert kept >= 150
    assert len(again.complete([request(f"p{i}") for i in range(1000)])) == 1000
    assert len(backend.asked) == 1000 - kept  # the leases of the dead hold nothing up
    assert store.spend().balanced


def test_requests_are_made_as_answers_are_taken(tmp_path: Path) -> None:
    made = 0

    def requests() -> Iterator[Request]:
        nonlocal made
        for i in range(50_000):
            made += 1
            yield request(f"p{i}")

    store = Store(tmp_path / "s")
    lazy = StoredModel(Lazy("large", lambda r, i: r.problem_id), store, None, True)
    for taken, _ in enumerate(lazy.stream(requests()), start=1):
        assert made - taken <= 3 * flow.WINDOW
        if taken == 3000:
            break
    for taken, _ in enumerate(lazy.stream(requests()), start=1):  # and when everything is stored already
        if taken == 3000:
            break
    assert made <= 6000 + 2 * flow._AHEAD


def test_a_wave_bounds_what_is_handed_over_at_once(tmp_path: Path) -> None:
    sizes = []

    class Listing(FakeModel):
        def generate(self, requests, go_on=lambda: True):
            requests = list(requests)
            sizes.append(len(requests))
            return super().generate(requests, go_on)

    backend = Listing("large", lambda r, i: r.problem_id)
    found = StoredModel(backend, Store(tmp_path / "s"), None, True, wave=300).complete(
        [request(f"p{i}") for i in range(1000)]
    )
    assert [outcome.text for (outcome,) in found] == [f"p{i}" for i in range(1000)]
    assert sizes == [300, 300, 300, 100]


def test_reading_asks_nobody(tmp_path: Path) -> None:
    asked, backend = model(Store(tmp_path / "s"))
    asked.complete([request("p1")])
    found = list(asked.read([request("p0"), request("p1")]))
    assert [outcome.__class__ for _, (outcome,) in found] == [Failure, Completion]
    assert len(backend.asked) == 1


def test_a_retried_call_is_a_row_and_settles_nothing(tmp_path: Path) -> None:
    class Retrying(FakeModel):
        def generate(self, requests, go_on=lambda: True):
            for position, asked in enumerate(requests):
                yield position, (Failure("429", again=True),) * len(asked.indices)
                answers = self.answer(asked)
                yield position, answers[:1]
                yield position, answers[1:]

    store = Store(tmp_path / "s", "r")
    backend = Retrying("large", lambda r, i: f"s{i}")
    found = StoredModel(backend, store, None, True).complete([request("p", (0, 1, 2))])
    assert [outcome.text for outcome in found[0]] == ["s0", "s1", "s2"]
    assert [(call.outcome, call.samples, call.error) for call in store.calls()] == [
        ("retried", 3, "429"),
        ("answered", 1, None),
        ("answered", 2, None),
    ]
    assert store.spend().balanced


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, model TEXT)")
    with pytest.raises(UserError, match="no store of this version"):
        Store(tmp_path / "old")


def test_a_backend_that_forgets_a_request_is_a_fault(tmp_path: Path) -> None:
    class Forgetful(FakeModel):
        def generate(self, requests, go_on=lambda: True):
            yield from list(super().generate(requests, go_on))[1:]

    with pytest.raises(RuntimeError, match="left 1 requests unanswered"):
        StoredModel(Forgetful("m", lambda r, i: "x"), Store(tmp_path / "s"), None, True).complete(
            [request("p0"), request("p1")]
        )


def test_runs_share_completions_and_not_their_books(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "s", "one"), Store(tmp_path / "s", "two")
    model(one)[0].complete([request("p0"), request("p1")])
    _, backend = shared = model(two)
    shared[0].complete([request("p1"), request("p2")])
    assert [r.problem_id for r in backend.asked] == ["p2"]
    assert (one.spend().calls, two.spend().calls, Store(tmp_path / "s").spend().calls) == (2, 1, 3)
