"""Buying by API from the command line, on a server of our own: kills, two runs on one store, budgets."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from fake_server import Server, plan_or_answer  # noqa: E402

RECIPE = """\
schema: 1
name: bought
task: math
data:
  train: {{source: {folder}/train.jsonl}}
  test: {{source: {folder}/test.jsonl}}
models:
  small: {{backend: recorded, path: {folder}/said.jsonl}}
  large: {{backend: api, model: large, base_url: {url}, api_key_env: FAKE_KEY, price: {{input: 100, output: 100}}}}
plans: {{samples: 2, keep: {{samples: 1, min_success: 0}}}}
cascade: {{calibrate: false}}
evaluate: {{strategies: [large], adapters: [none], resamples: 100}}
"""
PROBLEMS = 60


@pytest.fixture
def server() -> Server:
    """Fifty milliseconds a reply: time enough for two processes to want the same."""
    return Server(plan_or_answer, delay=0.05)


@pytest.fixture
def recipe(tmp_path: Path, server: Server) -> Path:
    """Sixty problems; every solution is recorded."""
    for split, size in (("train", PROBLEMS), ("test", 2)):
        rows = [{"id": f"{split}{i}", "question": f"{split} {i}: how many?", "answer": "1"} for i in range(size)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [{"id": f"train{i}", "completion": "\\boxed{1}"} for i in range(PROBLEMS)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tmp_path, url=server.url))
    return path


@pytest.fixture
def start(recipe: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`start("collect", "--out", folder)` types a command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FAKE_KEY": "none", "COLUMNS": "1000"}

    def typed(verb: str, *words: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "cope_train", verb, str(recipe), *map(str, words)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    yield typed


def test_two_processes_with_one_store_buy_nothing_twice(start: Callable, server: Server, tmp_path: Path) -> None:
    store = tmp_path / "shared.sqlite"
    both = [start("collect", "--out", tmp_path / name, f"store={store}") for name in ("one", "two")]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert max(server.asked.values()) == 1
    with sqlite3.connect(store) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT COUNT(*) - COUNT(DISTINCT key) FROM completions").fetchone() == (0,)
        assert db.execute("SELECT COUNT(DISTINCT problem_id) FROM calls WHERE model = 'large'").fetchone() == (
            PROBLEMS,
        )
        assert db.execute("SELECT COUNT(*) FROM leases").fetchone() == (0,)
    plans = [(tmp_path / name / "plans" / "data" / "train.parquet").read_bytes() for name in ("one", "two")]
    assert plans[0] == plans[1]


def test_a_budget_ends_a_verb_and_a_higher_one_goes_on(start: Callable, server: Server, tmp_path: Path) -> None:
    def collect(*words: str) -> tuple[int, str]:
        process = start("collect", "--out", tmp_path / "run", *words)
        _, err = process.communicate(timeout=300)
        return process.returncode, err

    code, err = collect("budget.calls=50")
    assert code == 3
    assert "50 of 50 calls (budget) spent" in err
    assert "70 requests of this step (goals by large) are unanswered" in err or "guidelines by large" in err
    assert "USD at the mean price of calls so far" in err
    assert server.total == 50
    code, err = collect("budget.calls=50")
    assert (code, server.total) == (3, 50)  # the ledger remembers
    code, err = collect("budget.usd=0.3")  # a call is 20 + 16 tokens at 100 USD per million
    assert code == 3, err
    assert "of 0.3 USD (budget) spent" in err
    assert server.total <= 0.3 / 0.0036 + 64
    code, err = collect("budget.usd=9", "budget.collect.calls=1000")
    assert code == 0, err
    assert max(server.asked.values()) == 1


@pytest.mark.parametrize("kills", [5])
def test_nothing_is_lost_or_bought_again_by_kills(kills: int) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "kill_test.py"), "--kills", str(kills), "--problems", "8"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"(kills): {kills}\n" in done.stdout
    assert "completions lost: 0\ncompletions asked again although stored: 0\nrows that differ" in done.stdout
