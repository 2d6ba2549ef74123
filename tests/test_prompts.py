"""What the roles are told: the shipped texts, and files of a user's own in their place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cope_train import prompts
from cope_train.errors import UserError
from cope_train.prompts import PromptSet
from cope_train.records import Message

SETS = ("word_problems", "math")
ROLES = ("goal", "guideline", "solution")
QUESTION = "How many & <b>apples</b>?"


@pytest.fixture
def replaced(tmp_path: Path):
    """The word problems' set with a text of our own for one role."""

    def load(text: str | bytes, role: str = "solution") -> PromptSet:
        path = tmp_path / "mine.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return prompts.load("word_problems", {role: path})

    return load


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_a_system_text_and_is_told_the_question(name: str, role: str) -> None:
    system, user = prompts.load(name).render(role, question=QUESTION)
    assert (system.role, user.role) == ("system", "user")
    assert system.content
    assert "version" not in system.content  # the version's comment is for us
    assert user.content.startswith(QUESTION)  # as it is, without escapes
    for part in (system.content, user.content):
        assert part == part.strip()
        assert not any(sign in part for sign in ("{{", "{%", "{#", "---"))


@pytest.mark.parametrize("name", SETS)
def test_plans_stand_after_the_question_and_only_where_they_are_given(name: str) -> None:
    told = prompts.load(name)
    bare = told.render("solution", question=QUESTION)[-1].content
    both = told.render("solution", question=QUESTION, goal="FIND IT", guideline="ADD UP")[-1].content
    assert both.index(QUESTION) < both.index("Goal: FIND IT") < both.index("Guideline: ADD UP")
    assert both.startswith(bare)  # prompts of one problem share their beginning
    assert not any(word in bare for word in ("Goal", "Guideline"))
    only = told.render("solution", question=QUESTION, guideline="ADD UP")[-1].content
    assert "Goal" not in only
    assert "Guideline: ADD UP" in only
    assert told.render("goal", question=QUESTION, goal="FIND IT") == told.render("goal", question=QUESTION)


def test_a_file_is_parted_at_its_first_line_of_dashes() -> None:
    told = PromptSet({"goal": "{# version 7 #}\n  Be --- brief. \n---\n\n {{ question }} \n---\n"})
    assert told.render("goal", question="Why?") == (Message("system", "Be --- brief."), Message("user", "Why? \n---"))


@pytest.mark.parametrize("text", ["{{ question }}", "{# version 1 #}\n---\n{{ question }}\n", "---\n{{ question }}"])
def test_a_blank_system_text_is_left_out(text: str) -> None:
    assert PromptSet({"goal": text}).render("goal", question="Why?") == (Message("user", "Why?"),)


@pytest.mark.parametrize("question", ["One.\n---\nTwo.", "---\nTwo."])
def test_a_line_in_the_question_is_no_border_of_parts(question: str) -> None:
    alone = PromptSet({"goal": "{{ question }}"}).render("goal", question=question)
    assert alone == (Message("user", question),)
    after = PromptSet({"goal": "Be brief.\n---\n{{ question }}"}).render("goal", question=question)
    assert after == (Message("system", "Be brief."), Message("user", question))


def test_a_question_is_no_template() -> None:
    assert PromptSet({"goal": "{{ question }}"}).render("goal", question="{{ goal }}") == (
        Message("user", "{{ goal }}"),
    )


def test_a_replaced_file_replaces_its_role_only(replaced) -> None:
    shipped, told = prompts.load("word_problems"), replaced("Solve: {{ question }}")
    assert told.render("solution", question="Why?") == (Message("user", "Solve: Why?"),)
    assert told.render("goal", question="Why?") == shipped.render("goal", question="Why?")


def test_hashes_change_with_the_text_and_with_nothing_else(replaced) -> None:
    shipped = prompts.load("word_problems").hashes
    assert prompts.load("word_problems").hashes == shipped
    assert set(shipped) == set(ROLES)
    assert shipped != prompts.load("math").hashes
    text = "Solve: {{ question }}"
    changed = replaced(text).hashes
    assert changed["solution"] == hashlib.sha256(text.encode()).hexdigest()
    assert {role for role in ROLES if changed[role] != shipped[role]} == {"solution"}
    assert replaced(text + " ").hashes["solution"] != changed["solution"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompt for goal: cannot read .*nowhere\.txt: No such file"):
        prompts.load("word_problems", {"goal": tmp_path / "nowhere.txt"})


@pytest.mark.parametrize(
    "text", ["{{ question", "{% if goal %}{{ goal }}", "Be brief.\n---\n{% endif %}", "{{ question | shout }}"]
)
def test_a_broken_template_is_named(replaced, text: str) -> None:
    with pytest.raises(UserError, match=r"prompt for goal: .*mine\.txt is no Jinja template: ."):
        replaced(text, "goal")


def test_a_file_that_is_no_text_is_named(replaced) -> None:
    with pytest.raises(UserError, match=r"prompt for goal: .*mine\.txt is no UTF-8 text"):
        replaced(b"caf\xe9 {{ question }}", "goal")
