"""The task `math`: votes by value, verdicts, and real gold answers right against themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cope_train import prompts
from cope_train.recipe.schema import Data
from cope_train.records import Problem, Verdict
from cope_train.tasks import data
from cope_train.tasks.math import Math

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="module")
def task() -> Iterator[Math]:
    made = Math(prompts.load("math"))
    yield made
    made.close()


def test_equal_answers_vote_together(task: Math) -> None:
    answers = [r"\frac{1}{2}", "0.5", None, "2", r"\sqrt{4}", "1/2"]
    assert task.groups(answers) == [0, 0, None, 1, 1, 0]


def test_what_cannot_be_compared_is_not_merged_and_is_our_failure(task: Math, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task._equality, "same", lambda one, two: "equal" if one == two else "error")
    assert task.groups(["a", "b", "a"]) == [0, 1, 0]
    assert task.judge(Problem("p", "?", "a"), "b") is Verdict.failure


def test_verdicts(task: Math) -> None:
    problem = Problem("p", "?", r"\frac{3}{4}")
    assert task.judge(problem, "0.75") is Verdict.right
    assert task.judge(problem, "0.7") is Verdict.wrong
    assert task.judge(problem, None) is Verdict.unparseable


def test_prompts_put_the_problem_before_plans(task: Math) -> None:
    system, user = task.ask(Problem("p", "What is 1?"), "solution", {"goal": "Find it.", "guideline": "Look."})
    assert "boxed" in system.content
    assert user.content.startswith("What is 1?")
    assert user.content.index("What is") < user.content.index("Find it.") < user.content.index("Look.")
    plain = task.ask(Problem("p", "What is 1?"), "solution", {})[1].content
    assert plain == "What is 1?"
    for role in ("goal", "guideline"):
        assert "answer" in task.ask(Problem("p", "What is 1?"), role, {})[0].content


@pytest.mark.parametrize(
    ("name", "count"), [("gsm8k/train.jsonl", 7473), ("gsm8k/test.jsonl", 1319), ("math500/test.jsonl", 500)]
)
def test_real_gold_answers_are_right_against_themselves(task: Math, name: str, count: int) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} of the public data sets does not lie beside this checkout")
    problems = data.load(Data(source=str(DATA / name)), "math")
    assert len(problems) == count
    wrong = [p for p in problems if task.judge(p, task.extract(rf"\boxed{{{p.answer}}}")) is not Verdict.right]
    assert wrong == []
