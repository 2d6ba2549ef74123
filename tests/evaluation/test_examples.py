"""Ten problems worth looking at: what changed first, gains and losses by turns."""

from __future__ import annotations

from dataclasses import replace

from cope_train.evaluation.examples import pick
from cope_train.records import Problem, Sample, Trace
from tests.evaluation.made import FAILURE, RIGHT, UNPARSEABLE, WRONG, stage, trace

PROBLEMS = [Problem(f"p{i}", f"question {i}", str(i)) for i in range(40)]


def ended(number: int, verdict=RIGHT, stages: int = 1, seed: int = 0, name: str = "cope") -> Trace:
    before = [stage(f"stage{i}", WRONG, 0.5, accepted=False) for i in range(1, stages)]
    return trace(f"p{number}", *before, stage(f"stage{stages}", verdict, 0.75), seed=seed, strategy=name)


def picked(pairs: list[tuple], count: int = 10) -> list[dict]:
    before = [ended(i, *one) for i, (one, _) in enumerate(pairs)]
    after = [ended(i, *two, name="cope@planner") for i, (_, two) in enumerate(pairs)]
    return pick(before, after, PROBLEMS, count)


SAME, GAINED, LOST = ((RIGHT,), (RIGHT,)), ((WRONG,), (RIGHT,)), ((RIGHT,), (UNPARSEABLE,))
CHEAPER, DEARER = ((RIGHT, 3), (RIGHT, 1)), ((WRONG, 1), (WRONG, 2))


def test_gains_and_losses_take_turns() -> None:
    found = picked([SAME] * 3 + [GAINED] * 20 + [LOST] * 3)
    assert [example["what"] for example in found] == ["gained", "lost", "same"] * 3 + ["gained"]
    assert [example["id"] for example in found[:3]] == ["p3", "p23", "p0"]


def test_ten_successes_are_shown_only_where_there_is_nothing_else() -> None:
    assert [example["what"] for example in picked([GAINED] * 12)] == ["gained"] * 10


def test_a_change_of_stage_is_a_change_too() -> None:
    found = picked([SAME, DEARER, CHEAPER, LOST, GAINED])
    assert [example["what"] for example in found] == ["gained", "lost", "cheaper", "dearer", "same"]


def test_no_more_than_there_are() -> None:
    assert [example["id"] for example in picked([SAME] * 3)] == ["p0", "p1", "p2"]
    assert len(picked([SAME, GAINED, LOST], count=2)) == 2
    assert picked([]) == []


def test_a_failure_is_ours_and_shows_no_gain_or_loss() -> None:
    assert [example["id"] for example in picked([((FAILURE,), (RIGHT,)), ((RIGHT,), (FAILURE,)), SAME])] == ["p2"]


def test_one_seed_is_shown_and_paired_with_itself() -> None:
    before = [ended(0, WRONG, seed=1), ended(0, RIGHT, seed=2)]
    after = [ended(0, WRONG, seed=2), ended(0, RIGHT, seed=1)]
    assert [(example["id"], example["what"]) for example in pick(before, after, PROBLEMS)] == [("p0", "gained")]


def test_an_example_tells_both_sides() -> None:
    one = trace("p1", stage("stage1", WRONG, 0.625, accepted=False), stage("stage3", WRONG, text="hm =1"))
    two = trace("p1", stage("stage1", RIGHT, 1.0, text="so =1", plans={"goal": "find it"}), strategy="cope@planner")
    (found,) = pick([one], [two], PROBLEMS)
    assert found == {
        "id": "p1",
        "question": "question 1",
        "gold": "1",
        "what": "gained",
        "before": {
            "strategy": "cope",
            "stage": "stage3",
            "consensus": "0.62",
            "verdict": "wrong",
            "answer": "1",
            "plans": {},
            "solution": "hm =1",
        },
        "after": {
            "strategy": "cope@planner",
            "stage": "stage1",
            "consensus": "1.00",
            "verdict": "right",
            "answer": "1",
            "plans": {"goal": "find it"},
            "solution": "so =1",
        },
    }


def test_the_solution_shown_is_one_that_voted_for_the_answer() -> None:
    end = stage("stage1", text="so =1", plans={"goal": "the winner's"})
    other = Sample(0, "no =2", "2", 0, {"goal": "another's"})
    (found,) = pick([ended(0)], [trace("p0", replace(end, samples=(other, *end.samples)))], PROBLEMS)
    assert (found["after"]["solution"], found["after"]["plans"]) == ("so =1", {"goal": "the winner's"})
