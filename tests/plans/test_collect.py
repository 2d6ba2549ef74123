"""Collecting plans on fakes: lint, keeping by what the executor does, failures, and the plan set on disk."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import pytest

from cope_train.errors import ServerError, UserError
from cope_train.models.store import Store
from cope_train.models.stored import StoredModel
from cope_train.plans import planset
from cope_train.plans.collect import Collector
from cope_train.plans.lint import lint
from cope_train.recipe.schema import Plans
from cope_train.records import Completion, Failure, Problem
from tests.fakes import PROBLEMS, FakeModel, FakeTask

HASHES = {"goal": "h1", "guideline": "h2", "solution": "h3"}


def collect(plan, solve, **section):
    models = {"large": FakeModel("large", plan), "small": FakeModel("small", solve)}
    store = Store(Path(mkdtemp()) / "store.sqlite")
    stored = {name: StoredModel(model, store, None, True) for name, model in models.items()}
    collector = Collector(stored, FakeTask(), Plans(**section), {}, HASHES)
    plans = list(collector.collect(PROBLEMS, seed=0))
    store.close()
    return plans, models


def test_plans_are_kept_when_the_executor_succeeds_often_enough() -> None:
    def solve(request, index):
        helped = "good" in request.messages[-1].content
        return f"={request.problem_id[1:]}" if helped or index == 0 else "=no"

    plans, models = collect(lambda r, i: ("good", "bad")[i], solve)
    assert len(plans) == 4 * 2 * 2
    assert {(p.plan, p.success_rate, p.kept) for p in plans} == {("good", 1.0, True), ("bad", 0.25, False)}
    assert {p.samples for p in plans} == {4}
    assert {p.prompt_hash for p in plans} == {"h1", "h2"}
    assert {r.sampling.temperature for r in models["large"].asked} == {0.8}


def test_broken_plans_are_not_tried() -> None:
    plans, models = collect(lambda r, i: "so \\boxed{3}" if i else "fine", lambda r, i: "=0")
    assert {(p.lint, p.samples) for p in plans} == {(("boxed",), 0), ((), 4)}
    assert not any("boxed" in r.messages[-1].content for r in models["small"].asked)


def test_failures_are_left_out_of_the_rate_and_too_many_stop_the_verb() -> None:
    def solve(request, index):
        return Failure("x") if request.problem_id == "p0" and index == 0 else f"={request.problem_id[1:]}"

    plans, _ = collect(lambda r, i: "plan", solve)
    assert {(p.problem_id, p.samples, p.success_rate) for p in plans if p.problem_id in ("p0", "p1")} == {
        ("p0", 3, 1.0),
        ("p1", 4, 1.0),
    }
    with pytest.raises(ServerError, match="could not be had"):
        collect(lambda r, i: Failure("down"), solve)


@pytest.mark.parametrize(
    ("text", "finish", "broken"),
    [
        ("add the numbers", "stop", ()),
        ("  ", "stop", ("empty",)),
        ("add the", "length", ("cut",)),
        ("x" * 601, "stop", ("too long",)),
        ("then \\boxed{12}", "stop", ("boxed", "answer inside")),
        ("you get 12 apples", "stop", ("answer inside",)),
        ("you get 112 or 12.5 or 120", "stop", ()),
        ("so it is 12.", "stop", ("answer inside",)),
    ],
)
def test_lint(text: str, finish: str, broken: tuple) -> None:
    problem = Problem("p", "What is three times four?", "12")
    assert lint(Completion(text, finish), problem, 600) == broken


def test_a_number_of_the_question_may_stand_in_a_plan() -> None:
    assert lint(Completion("take 12", "stop"), Problem("p", "Ann has 12 and finds 0.", "12"), 600) == ()


def test_a_plan_set_is_a_datasets_folder_that_reads_back(tmp_path: Path) -> None:
    from datasets import load_dataset

    plans, _ = collect(lambda r, i: f"plan {i}", lambda r, i: f"={request_answer(r)}")
    planset.save(plans, tmp_path / "plans", {"recipe": "test"})
    assert planset.load(tmp_path / "plans") == plans
    rows = load_dataset(str(tmp_path / "plans"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == len(plans)
    card = (tmp_path / "plans" / "README.md").read_text()
    assert "| goal | 8 | 8 | 100.0% | none |" in card
    planset.save(plans[:1], tmp_path / "plans", {})
    assert len(planset.load(tmp_path / "plans")) == 1


def request_answer(request) -> str:
    return request.problem_id[1:]


def test_no_plan_set_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cope-train collect"):
        planset.load(tmp_path)
