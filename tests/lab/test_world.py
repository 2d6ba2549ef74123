"""The world: splits that cannot overlap, problems that stay the same, golds that are right, values within bounds."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from cope_train.errors import UserError
from cope_train.lab import mixture, world

BOXED = re.compile(r"\\boxed\{(\d+)\}")
EVENT = re.compile(r"(\d+) ([-+x/]) (\d+) = (\d+)")
COMPUTE = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "x": lambda a, b: a * b, "/": lambda a, b: a / b}


def test_each_question_belongs_to_one_split() -> None:
    seen = {split: {p.question for p in world.problems(split, 300)} for split in world.SPLITS}
    for split, questions in seen.items():
        assert len(questions) == 300
        assert {world.split_of(question) for question in questions} == {split}
    assert sorted(byte for bytes_ in world.SPLITS.values() for byte in bytes_) == list(range(256))


def test_a_position_always_holds_the_same_problem() -> None:
    assert world.problems("test", 20)[5:] == world.problems("test", 15, offset=5)
    first = world.problems("train", 1)[0]
    assert first.id == "train-0"
    assert first == world.problems("train", 1)[0]


def test_gold_solutions_end_in_the_answer_and_every_sum_is_right() -> None:
    for problem in world.problems("calibration", 300):
        text = problem.meta["solution"]
        assert BOXED.findall(text) == [problem.answer]
        sums = EVENT.findall(text)
        assert 2 <= len(sums) <= 5
        for before, sign, number, after in sums:
            assert COMPUTE[sign](int(before), int(number)) == int(after)
            assert 1 <= int(after) <= 99


def test_guidelines_hold_no_results_and_goals_no_numbers() -> None:
    for problem in world.problems("test", 200):
        assert not re.search(r"\d", problem.meta["goal"])
        steps = problem.meta["guideline"].count(",")
        assert steps == len(EVENT.findall(problem.meta["solution"]))
        assert "=" not in problem.meta["guideline"]


def test_confusers_share_their_day_with_a_fact_that_counts() -> None:
    confused = 0
    for index in range(300):
        story = world.story("test", index)
        counting = {fact.day: fact.verb for fact in story.log if fact.kind == "true"}
        for fact in story.log:
            if fact.kind != "true":
                confused += 1
                assert fact.day in counting
                assert fact.verb != counting[fact.day]
        assert set(story.told) == set(story.log)
    assert confused > 300


def test_readings_lead_to_many_answers() -> None:
    rng = random.Random(0)
    spread = mixture.table(mixture.SPREAD)
    distinct = []
    for index in range(200):
        story = world.story("test", index)
        if sum(fact.kind != "true" for fact in story.log) >= 2:
            found = [world.values(mixture.read(story, rng, spread)) for _ in range(40)]
            assert all(values and 1 <= min(values) <= max(values) <= 99 for values in found)
            distinct.append(len({values[-1] for values in found if values}))
    assert sum(distinct) / len(distinct) > 5


def test_levels_order_difficulty() -> None:
    problems = world.problems("test", 300)
    assert {problem.level for problem in problems} == {"1", "2", "3", "4", "5"}
    words = {level: [len(p.question.split()) for p in problems if p.level == level] for level in "15"}
    assert max(words["1"]) < min(words["5"])


def test_the_harder_world_has_longer_chains_more_confusers_and_problems_of_its_own() -> None:
    standard, harder = world.problems("test", 200), world.problems("test", 200, setting="harder")
    assert not {problem.id for problem in standard} & {problem.id for problem in harder}
    assert not {problem.question for problem in standard} & {problem.question for problem in harder}
    assert min(int(problem.level) for problem in harder) > np.mean([int(problem.level) for problem in standard])
    for index in range(200):
        story = world.story("test", index, "harder")
        assert 5 <= len(story.truth) <= 7
        assert sum(fact.kind != "true" for fact in story.log) >= 2
        assert world.split_of(story.question) == "test"
        assert all(1 <= value <= 99 for value in world.values(story.truth))


def test_an_unknown_setting_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match="'hard'.*standard, harder"):
        world.problems("test", 1, setting="hard")


def test_an_unknown_split_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match="'dev'.*pretrain, train, calibration, test"):
        world.problems("dev", 1)


def test_a_reading_out_of_range_has_no_solution() -> None:
    start = world.Fact(0, "had", "add", 5, "Ann", "boxes")
    more = world.Fact(1, "lost", "take", 9, "Ann", "boxes")
    assert world.values((start, more)) is None
    with pytest.raises(ValueError, match="1-99"):
        world.solution((start, more))
