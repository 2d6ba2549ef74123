"""kill -9 in the middle of collect, train and evaluate; the same command then gives the undisturbed report."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import ROOT, SMALL, TINY, inside, type_command

# Small batches, so that there is a middle to be killed in.
ARGUMENTS = (
    *SMALL,
    "models.small.batch_tokens=12000",
    "models.large.batch_tokens=6000",
    "train.planner.save_steps=1",
    "evaluate.strategies=[small-single, large, cope]",
    "evaluate.adapters=[none, planner]",
)


def calls(run: Path, role: str = "%") -> int:
    """Calls in the ledger so far."""
    try:
        with sqlite3.connect(f"file:{run / 'store.sqlite'}?mode=ro", uri=True) as db:
            return db.execute("SELECT COUNT(*) FROM calls WHERE role LIKE ?", (role,)).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def kill_when(run: Path, reached: Callable[[], bool]) -> None:
    """Start the run, wait for a state, and kill it there with no chance to tidy up."""
    command = [sys.executable, "-m", "cope_train", "run", TINY, "--out", str(run), *ARGUMENTS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not reached():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def undated(report: Path) -> dict:
    """A report less its wall times."""
    content = json.loads(report.read_text())
    for row in content["strategies"].values():
        del row["seconds"]
    return content


def test_a_run_killed_in_every_verb_reports_as_an_undisturbed_one(tmp_path: Path) -> None:
    with inside(tmp_path):
        assert type_command("run", TINY, "--out", "whole", *ARGUMENTS).code == 0
        run = tmp_path / "killed"
        kill_when(run, lambda: calls(run) >= 6)
        collecting = calls(run)
        kill_when(run, lambda: any(run.glob("checkpoints/planner/checkpoint-*")))
        assert calls(run) > collecting
        assert not (run / "adapters" / "executor").exists()
        before = calls(run)
        kill_when(run, lambda: calls(run) >= before + 30)
        assert not (run / "report.json").exists()
        typed = type_command("run", TINY, "--out", "killed", *ARGUMENTS)
        assert typed.code == 0, typed.err
    assert undated(run / "report.json") == undated(tmp_path / "whole" / "report.json")
    assert calls(run) == calls(tmp_path / "whole")  # nothing was bought twice
