"""The task `word_problems`: what is asked, read, grouped and judged."""

from __future__ import annotations

import pytest

from cope_train import prompts
from cope_train.lab import world
from cope_train.records import Problem, Verdict
from cope_train.tasks.word_problems import WordProblems


@pytest.fixture
def task() -> WordProblems:
    return WordProblems(prompts.load("word_problems"))


def test_the_question_comes_before_the_plans(task: WordProblems) -> None:
    system, user = task.ask(Problem("a", "How many?"), "solution", {"goal": "Find it.", "guideline": "Add."})
    assert (system.role, user.role) == ("system", "user")
    assert user.content == "How many?\nGoal: Find it.\nGuideline: Add."


@pytest.mark.parametrize(
    ("plans", "lines"),
    [({}, []), ({"goal": "g"}, ["Goal: g"]), ({"guideline": "h"}, ["Guideline: h"])],
)
def test_plans_are_optional(task: WordProblems, plans: dict[str, str], lines: list[str]) -> None:
    assert task.ask(Problem("a", "Why?"), "solution", plans)[-1].content.split("\n") == ["Why?", *lines]


def test_planners_see_the_question_only(task: WordProblems) -> None:
    for role in ("goal", "guideline"):
        assert task.ask(Problem("a", "Why?"), role, {"goal": "g"})[-1].content == "Why?"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is \\boxed{47}.", "47"),
        ("\\boxed{3} no, \\boxed{12}", "12"),
        ("\\boxed{ 007 }", "7"),
        ("\\boxed{-4}", "-4"),
        ("\\boxed{}", None),
        ("\\boxed{x}", None),
        ("\\boxed{12", None),
        ("The answer is 47.", None),
        ("", None),
    ],
)
def test_the_last_boxed_number_is_the_answer(task: WordProblems, text: str, answer: str | None) -> None:
    assert task.extract(text) == answer


def test_equal_numbers_vote_together(task: WordProblems) -> None:
    first, none, other, again = task.groups(["7", None, "12", "7"])
    assert first == again != other
    assert none is None


def test_verdicts(task: WordProblems) -> None:
    problem = Problem("a", "?", answer="12")
    assert task.judge(problem, "12") is Verdict.right
    assert task.judge(problem, "13") is Verdict.wrong
    assert task.judge(problem, None) is Verdict.unparseable


def test_gold_solutions_are_right(task: WordProblems) -> None:
    for problem in world.problems("test", 100):
        assert task.judge(problem, task.extract(problem.meta["solution"])) is Verdict.right
