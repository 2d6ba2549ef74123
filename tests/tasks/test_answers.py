"""Reading answers out of solutions, and real recorded solutions against their graders' labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cope_train.tasks.answers import extract, normal

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is $\boxed{42}$.", "42"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5$.", "5"),
        (r"first \boxed{3}, then cut off at \boxed{\frac{1", "3"),
        (r"\boxed{} and so 4", "4"),
        ("Janet makes 9 * 2 = $<<9*2=18>>18.\n#### 18", "18"),
        ("#### 1,234", "1,234"),
        ("work\nA: 70000", "70000"),
        ("The answer is 12 apples.", "12"),
        ("The final answer is: $\\frac{3}{4}$.", r"\frac{3}{4}"),
        ("Answer: **x = 7**", "x = 7"),
        ("The answer is Monday.", "Monday"),
        ("The answer is 3 + 4i.", "3 + 4i"),
        ("She has 3 left, that is $1,500 in all.", "1500"),
        ("about -2.5 degrees", "-2.5"),
        ("half, 1/2", "1/2"),
        ("a value of .5", ".5"),
        ("So x = \u22125", "-5"),
        ("\\boxed{\u22125}", "-5"),
        ("The answer isn't 5 but 6", "6"),
        ("The answer is not 5 but 6.", "6"),
        ("the answer is approximately 3.5 km", "3.5"),
        ("The answer is a total of -2, as shown.", "-2"),
        ("The answer is about $1,500 a year.", "1500"),
        (r"The answer is equal to $\frac{1}{2}$ of it.", r"\frac{1}{2}"),
        ("The answer is equal to 3 + 4i.", "3 + 4i"),
        ("The answer is sin 30", "sin 30"),
        ("The answer is negative 5.", "negative 5"),
        ("The answer is x = 5", "x = 5"),
        ("The answer is the point (3, 4).", "the point (3, 4)"),
        ("v2 of the file", None),
        ("no number at all", None),
        ("", None),
        (r"\boxed{", None),
    ],
)
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text", [r"\boxed{" + "{" * 50, "}" * 9 + r"\boxed{}}", r"\boxed", "####", "A:", "answer is", "$"]
)
def test_broken_text_never_raises(text: str) -> None:
    assert extract(text) is None or isinstance(extract(text), str)


def test_a_typeset_minus_is_a_minus() -> None:
    assert normal("\u22123") == "-3"


def test_normal_is_stable() -> None:
    for text in (r"\dfrac12", r"\text{(A)}", "1,234", "x = 5", r"90^\circ", "(1,234)", r"\sqrt2"):
        assert normal(normal(text)) == normal(text)


def rows(name: str) -> list[dict]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} of the public data sets does not lie beside this checkout")
    return [json.loads(line) for line in path.open(encoding="utf-8")]


@pytest.mark.parametrize("system", ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"])
def test_real_recorded_solutions_are_graded_as_their_file_says(system: str) -> None:
    solutions = rows("gsm8k/example_model_solutions.jsonl")
    assert len(solutions) == 1319
    for row in solutions:
        found, gold = extract(row[system]["solution"]), extract(row["ground_truth"])
        assert (found is not None and normal(found) == normal(gold)) == row[system]["is_correct"], row[system]


def test_real_worked_solutions_hold_their_answers() -> None:
    for row in rows("math500/test.jsonl"):
        assert normal(extract(row["solution"])) == normal(row["answer"])
