"""Kill collect and evaluate with SIGKILL at random moments, resume them, and see what was lost or bought again.

    python scripts/kill_test.py [--kills 100]

A server of our own on the loopback answers every request the same way each time and counts what it is asked. One run
is left in peace; others are killed again and again, at moments drawn as numbers of requests, and resumed by the same
command. Prints what was lost, what was asked again although it was stored, and what differs; exit code 1 unless all
are 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from fake_server import Server, plan_or_answer

ROOT = Path(__file__).parent.parent
RECIPE = """\
schema: 1
name: kill-test
task: math
data:
  train: {{source: {folder}/train.jsonl}}
  test: {{source: {folder}/test.jsonl}}
models:
  small: {{model: small, {fake}}}
  large: {{model: large, {fake}}}
plans: {{samples: 2, keep: {{samples: 2, min_success: 0}}}}
cascade: {{calibrate: false}}
evaluate: {{strategies: [small-single, large, large-plan, cope], adapters: [none], resamples: 100}}
"""
_FAKE = "backend: api, base_url: {url}, api_key_env: FAKE_KEY, concurrency: 4, price: {{input: 1, output: 2}}"
_TRIES = 50  # resumes without an end of which something must be wrong


def main() -> None:
    """Run the test in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--problems", type=int, default=24, help="of each split")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Killing(Path(folder), options.problems, random.Random(options.seed)).run(options.kills)
    for what, count in found.items():
        print(f"{what}: {count}")
    sys.exit(1 if any(count for what, count in found.items() if not what.startswith("(")) else 0)


class Killing:
    """One recipe, a server, and runs of it that are killed."""

    def __init__(self, folder: Path, problems: int, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._server = Server(plan_or_answer, delay=0.005)
        for split in ("train", "test"):
            rows = [{"question": f"{split} {i}: how many?", "answer": "1"} for i in range(problems)]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, fake=_FAKE.format(url=self._server.url)))
        self._lost = self._again = self._kills = 0

    def run(self, kills: int) -> dict[str, int]:
        """Counts that must be 0, and in brackets how much they are counts of."""
        whole = self._folder / "whole"
        needed = {}
        for verb in ("collect", "evaluate"):
            before = self._server.total
            self._end(self._start(verb, whole), verb)
            needed[verb] = self._server.total - before
        differ = rounds = 0
        while self._kills < kills:
            run = self._folder / f"killed{rounds}"
            for verb in ("collect", "evaluate"):
                self._killed(verb, run, needed[verb], kills)
            differ += _differences(whole, run)
            rounds += 1
        return {
            "completions lost": self._lost,
            "completions asked again although stored": self._again,
            "rows that differ from an undisturbed run": differ,
            "(kills)": self._kills,
            "(runs)": rounds,
            "(requests answered)": self._server.total,
            "(of these answered again, since the kill came before the commit)": self._server.total
            - (rounds + 1) * sum(needed.values()),
        }

    def _killed(self, verb: str, run: Path, needed: int, kills: int) -> None:
        """Kill a verb at moments of its own until it ends; about five kills for each verb of a run."""
        for number in range(_TRIES):
            store = run / "store.sqlite"
            stored, before = _stored(store), self._server.total
            process = self._start(verb, run)
            if number < 5 and self._kills < kills:
                self._wait(process, before + self._chance.randint(1, max(1, needed // 3)))
                process.send_signal(signal.SIGKILL)
                self._kills += process.wait() == -signal.SIGKILL
            else:
                self._end(process, verb)
            kept = _stored(store)
            self._lost += len(stored - kept)
            self._again += _bought_twice(store)
            if process.returncode == 0:
                return
        raise SystemExit(f"{verb} does not end")

    def _wait(self, process: subprocess.Popen, requests: int) -> None:
        """Until the server has answered so many requests, or the process has ended."""
        with self._server.reached:
            while self._server.total < requests and process.poll() is None:
                self._server.reached.wait(0.2)

    def _start(self, verb: str, run: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "cope_train", verb, str(self._folder / "recipe.yaml"), "--out", str(run), "-q"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "FAKE_KEY": "none"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def _end(process: subprocess.Popen, verb: str) -> None:
        _, error = process.communicate()
        if process.returncode:
            raise SystemExit(f"{verb} failed: {error}")


def _stored(store: Path) -> set[tuple]:
    """Keys and bodies of what is committed."""
    if not store.exists():
        return set()
    with sqlite3.connect(store) as db:
        try:
            return set(db.execute("SELECT key, call_id, body FROM completions"))
        except sqlite3.OperationalError:  # killed before it had tables
            return set()


def _bought_twice(store: Path) -> int:
    """Completions that were asked for again once they were there: each is stored, under the call that bought it."""
    if not _stored(store):
        return 0
    with sqlite3.connect(store) as db:
        return db.execute("SELECT COUNT(*) - COUNT(DISTINCT key) FROM completions").fetchone()[0]


def _differences(whole: Path, run: Path) -> int:
    """Plans and traces that are not the same in both folders, less the wall times."""
    return sum(len(one ^ two) for one, two in zip(_rows(whole), _rows(run), strict=True))


def _rows(run: Path) -> tuple[set[str], set[str]]:
    import pyarrow.parquet

    plans = pyarrow.parquet.read_table(run / "plans" / "data" / "train.parquet").to_pylist()
    traces = set()
    for path in sorted((run / "traces").rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            trace = json.loads(line)
            for used in (used for stage in trace["stages"] for used in stage["usage"].values()):
                del used["seconds"]
            traces.add(f"{path.name} {json.dumps(trace, sort_keys=True)}")
    return {json.dumps(plan, sort_keys=True) for plan in plans}, traces


if __name__ == "__main__":
    main()
