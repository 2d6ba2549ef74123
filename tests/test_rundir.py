"""The run folder: locked while in use, free after a kill, and it knows what has changed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cope_train.errors import UserError
from cope_train.recipe import Recipe, load
from cope_train.rundir import RunDir

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(ROOT / "recipes/word_problems/tiny.yaml")


def test_a_run_in_use_is_refused_and_free_after_a_kill(tmp_path: Path, recipe: Recipe) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from cope_train.recipe import load; from cope_train.rundir import RunDir\n"
        "with RunDir.open(Path(sys.argv[1]), load(sys.argv[2])): print('open', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "run"), str(ROOT / "recipes/word_problems/tiny.yaml")]
    holder = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(UserError, match=f"in use by process {holder.pid} since"), RunDir.open(tmp_path / "run", recipe):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunDir.open(tmp_path / "run", recipe) as run:
        assert load(run.path / "recipe.yaml") == recipe


def test_what_changed_is_said_in_words(tmp_path: Path, recipe: Recipe) -> None:
    inputs = {"plans": {"samples": 2, "kinds": ["goal"]}, "data": "a" * 64}
    with RunDir.open(tmp_path, recipe) as run:
        assert run.changed("collect", inputs) is None
        run.done("collect", inputs)
        assert run.changed("collect", inputs) == []
        assert run.changed("train", inputs) is None
    with RunDir.open(tmp_path, recipe) as run:
        other = {"plans": {"samples": 4, "kinds": ["goal"]}, "data": "b" * 64, "new": 1}
        assert run.changed("collect", other) == ["data changed", "new: null -> 1", "plans.samples: 2 -> 4"]


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        RunDir.read(tmp_path)


def test_the_manifest_says_where_each_verbs_outputs_come_from(tmp_path: Path, recipe: Recipe) -> None:
    with RunDir.open(tmp_path, recipe) as run:
        run.write_manifest("collect", {"seeds": [0]})
        run.write_manifest("report", {"seeds": [1]})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["collect"]["seeds"], manifest["report"]["seeds"]) == ([0], [1])
    assert manifest["collect"]["versions"]["torch"].startswith("2.13")
    assert {"system", "cores", "memory_gib"} <= set(manifest["collect"]["machine"])


def test_a_verb_that_is_forgotten_was_never_done(tmp_path: Path, recipe: Recipe) -> None:
    with RunDir.open(tmp_path, recipe) as run:
        run.done("collect", {"a": 1})
        run.done("train", {"a": 1})
        run.forget("collect")
        assert run.changed("collect", {"a": 1}) is None
        assert run.changed("train", {"a": 1}) == []


def test_a_half_written_file_never_replaces_a_whole_one(tmp_path: Path, recipe: Recipe) -> None:
    with RunDir.open(tmp_path, recipe) as run:
        run.write_lines(tmp_path / "x.jsonl", ["whole"])
        (tmp_path / "x.jsonl.new").write_text("ha")
        assert (tmp_path / "x.jsonl").read_text() == "whole\n"


def test_star_names_are_safe_files(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert "*" not in run.traces("test", "cope*@planner", 0).name
    assert run.traces("test", "cope*@planner", 0) != run.traces("test", "cope@planner", 0)
