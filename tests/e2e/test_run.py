"""The main job typed as a user would: everything in order, again for nothing, and only what changed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cope_train.cascade.engine import Engine
from cope_train.errors import BooksDoNotBalance
from cope_train.models.local import LocalBackend
from cope_train.models.store import Store
from tests.e2e.conftest import SMALL, TINY, inside, type_command

RUN = ("run", TINY, "--out", "runs/quickstart", *SMALL)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to change."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path


def test_the_run_leaves_everything_it_promises(finished: Path) -> None:
    run = finished / "runs" / "quickstart"
    for name in ("recipe.yaml", "manifest.json", "log.txt", "store.sqlite", "plans/README.md", "metrics/planner.jsonl"):
        assert (run / name).is_file(), name
    for role in ("planner", "executor"):
        for name in ("adapter_model.safetensors", "cope_train.json", "tokenizer.json"):
            assert (run / "export" / role / name).is_file(), name
    assert (run / "report.md").is_file()
    page = (run / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")  # self-contained
    assert "<script src" not in page
    report = json.loads((run / "report.json").read_text())
    names = {"small-single", "small-majority", "large", "large-plan", "cascade-no-plan", "random-escalation"}
    names |= {f"cope{mark}{adapters}" for mark in ("", "*") for adapters in ("", "@planner", "@executor", "@both")}
    assert set(report["strategies"]) == names
    assert report["n"] == 12
    assert report["ledger"]["balanced"] is True
    for row in report["strategies"].values():
        assert 0 <= row["accuracy_ci95"][0] <= row["accuracy"] <= row["accuracy_ci95"][1] <= 1
        assert row["usd_per_million"] >= 0
    assert report["strategies"]["small-single"]["usd_per_million"] == 0
    assert {pair["against"] for pair in report["comparisons"]} == {"cope", "large"}


def test_the_same_command_again_asks_no_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(LocalBackend, "generate", never)
    before = (copy / "runs/quickstart/report.json").read_text()
    with inside(copy):
        typed = type_command(*RUN)
    assert typed.code == 0, typed.err
    assert "collect: up to date" in typed.out
    assert "train planner: up to date" in typed.out
    assert "evaluate: up to date" in typed.out
    assert (copy / "runs/quickstart/report.json").read_text() == before


def test_a_changed_recipe_redoes_only_what_changed_and_says_so(copy: Path) -> None:
    run = copy / "runs/quickstart"
    planner = (run / "adapters/planner/adapter_model.safetensors").read_bytes()
    calls = len(list(Store(run / "store.sqlite").calls()))
    with inside(copy):
        typed = type_command(*RUN, "train.executor.learning_rate=1e-3")
    assert typed.code == 0, typed.err
    assert "collect: up to date" in typed.out
    assert "train planner: up to date" in typed.out
    assert "train.executor.learning_rate: 0.0005 -> 0.001" in typed.out
    assert (run / "adapters/planner/adapter_model.safetensors").read_bytes() == planner
    asked = list(Store(run / "store.sqlite").calls())[calls:]
    assert asked
    assert not any(call.role == "goal" and call.seed == 0 and call.samples == 2 for call in asked)  # no plan anew


def test_deleted_traces_are_made_again_from_the_store(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copy / "runs/quickstart"
    before = json.loads((run / "report.json").read_text())
    (run / "state.json").unlink()
    shutil.rmtree(run / "traces")
    shutil.rmtree(run / "adapters")
    shutil.rmtree(run / "plans")
    monkeypatch.setattr(LocalBackend, "generate", lambda *args: pytest.fail("a model was asked"))
    with inside(copy):
        typed = type_command(*RUN)
    assert typed.code == 0, typed.err
    assert json.loads((run / "report.json").read_text()) == before


def test_an_evaluation_that_was_cut_off_never_passes_for_the_one_before_it(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy / "runs/quickstart"
    before = json.loads((run / "report.json").read_text())
    done = []

    def break_off(self, strategy, *args, **kwargs):
        if done:
            raise KeyboardInterrupt
        done.append(strategy)
        return engine_run(self, strategy, *args, **kwargs)

    engine_run = Engine.run
    with inside(copy):
        with monkeypatch.context() as broken:
            broken.setattr(Engine, "run", break_off)
            other = ("evaluate.strategies=[small-majority, large]", "cascade.calibrate=false")
            assert type_command(*RUN, *other).code == 130
        typed = type_command(*RUN)
    assert typed.code == 0, typed.err
    assert "evaluate: up to date" not in typed.out
    assert json.loads((run / "report.json").read_text()) == before


def test_a_failure_on_the_calibration_split_is_asked_for_again(cope: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("evaluate", TINY, "--out", "r", "--limit", "6", "plans=null", "train=null")
    words = (*words, "evaluate.strategies=[large, cope]", "evaluate.resamples=200")
    engine_run = Engine.run

    def lose_one(self, *args, full_tree: bool = False, **kwargs):
        first, *others = engine_run(self, *args, full_tree=full_tree, **kwargs)
        return [replace(first, failure="lost"), *others] if full_tree else [first, *others]

    with monkeypatch.context() as broken:
        broken.setattr(Engine, "run", lose_one)
        assert cope(*words).code == 0
    typed = cope(*words)
    assert "evaluate: done anew, because failed: 1 -> 0" in typed.out
    assert "evaluate: up to date" in cope(*words).out


def test_a_report_of_another_recipe_is_refused(copy: Path) -> None:
    before = (copy / "runs/quickstart/report.json").read_text()
    with inside(copy):
        words = ("report", TINY, "--out", "runs/quickstart", *SMALL)
        assert type_command(*words, "evaluate.margin=0.05").code == 0
        for change in ("data.test.limit=3", "seeds=[7]", "cascade.thresholds={stage1: 0.9}"):
            typed = type_command(*words, change)
            assert typed.code == 2, change
            assert "the traces in runs/quickstart belong to another recipe" in typed.err
        assert type_command(*words).code == 0
    assert (copy / "runs/quickstart/report.json").read_text() == before


def test_a_report_from_books_that_do_not_balance_is_a_fault_and_no_report(copy: Path) -> None:
    run = copy / "runs/quickstart"
    (run / "report.md").unlink()
    with closing(Store(run / "store.sqlite")) as store:
        store._db.execute("DROP TRIGGER calls_no_update")
        store._db.execute("UPDATE calls SET completion_tokens = completion_tokens + 1 WHERE id = 1")
    with inside(copy), pytest.raises(BooksDoNotBalance, match="other tokens than its completions hold"):
        type_command("report", *RUN[1:])
    assert not (run / "report.md").exists()


def test_plans_of_another_recipe_are_not_trained_on(copy: Path) -> None:
    with inside(copy):
        typed = type_command("train", TINY, "--out", "runs/quickstart", *SMALL, "data.train.limit=5")
    assert typed.code == 2
    assert "the plans in runs/quickstart belong to another recipe" in typed.err


def test_show_tells_a_problems_whole_story(finished: Path) -> None:
    with inside(finished):
        line = next((finished / "runs/quickstart/traces/test").glob("*.jsonl")).read_text().splitlines()[0]
        problem = json.loads(line)["problem_id"]
        typed = type_command("show", "runs/quickstart", problem, "--strategy", "cope@planner")
        assert typed.code == 0, typed.err
        assert "== cope@planner (seed 0)" in typed.out
        assert "-- stage1: " in typed.out
        assert "against 0.75" in typed.out
        wrong = type_command("show", "runs/quickstart", "nobody")
        assert wrong.code == 2
        assert "no trace of problem 'nobody'; there are 24, such as test-0" in wrong.err
        nowhere = type_command("show", "runs/none", problem)
        assert nowhere.code == 2


def test_an_exported_adapter_loads_as_its_snippet_says(finished: Path) -> None:
    from peft import PeftModel

    from cope_train import lab
    from cope_train.models.identity import weights_fingerprint

    folder = finished / "runs/quickstart/export/planner"
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(snippet.replace("path/to/planner", str(folder)), names)  # our own text, not a model's
    assert isinstance(names["model"], PeftModel)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "lab/small"
    manifest = json.loads((folder / "cope_train.json").read_text())
    assert manifest["base"]["fingerprint"] == weights_fingerprint(lab.path("small"))
    assert "cope@planner" in (folder / "README.md").read_text()


def test_only_one_role(cope: Callable, tmp_path: Path) -> None:
    typed = cope("collect", TINY, "--out", "r", "--limit", "6", "--quiet")
    assert (typed.code, typed.out) == (0, "")
    typed = cope("train", TINY, "--out", "r", "--limit", "6", "--only", "planner", "train.planner.epochs=1")
    assert typed.code == 0, typed.err
    assert (tmp_path / "r/adapters/planner").is_dir()
    assert not (tmp_path / "r/adapters/executor").exists()


def test_the_line_is_typed_python_too(tmp_path: Path) -> None:
    from cope_train import verbs
    from cope_train.recipe import load
    from cope_train.recipe.options import narrowed

    with inside(tmp_path):
        recipe = narrowed(load(Path(TINY), ["evaluate.strategies=[large]", "cascade.calibrate=false"]), limit=5)
        recipe = recipe.model_copy(update={"plans": None, "train": None})
        folder = verbs.run(recipe)
    assert folder == Path("runs/word-problems-tiny")
    assert json.loads((tmp_path / folder / "report.json").read_text())["n"] == 5
