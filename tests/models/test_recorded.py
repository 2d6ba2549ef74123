"""Recorded completions: found by id or question, missing ones are failures, broken files are refused."""

from __future__ import annotations

import pytest

from cope_train.models.recorded import RecordedBackend
from cope_train.recipe.schema import RecordedModel
from cope_train.records import Failure, Message, Request, Sampling, UserError


def backend(path, **fields) -> RecordedBackend:
    return RecordedBackend("small", RecordedModel(backend="recorded", path=str(path), fields=fields))


def request(text: str, problem: str = "p", indices=(0,), role="solution") -> Request:
    return Request(problem, role, (Message("user", text),), Sampling(temperature=0.5), indices)


def ask(model: RecordedBackend, asked: Request):
    return next(model.generate([asked]))[1]


def test_found_by_question_inside_the_prompt_with_dotted_columns(write_jsonl) -> None:
    rows = [{"q": "How many?", "sys": {"out": "four"}}, {"q": "How many? Really", "sys": {"out": "five"}}]
    model = backend(write_jsonl("r.jsonl", rows), question="q", completion="sys.out")
    assert ask(model, request("How many?"))[0].text == "four"
    assert ask(model, request("Problem: How many? Really\nSolve it."))[0].text == "five"  # the longest that fits
    assert isinstance(ask(model, request("Something else"))[0], Failure)


def test_found_by_id_role_and_index(write_jsonl) -> None:
    rows = [
        {"id": "a", "role": "goal", "index": 0, "completion": "g"},
        {"id": "a", "index": 0, "completion": "s0"},
        {"id": "a", "index": 1, "completion": "s1"},
    ]
    model = backend(write_jsonl("r.jsonl", rows))
    assert [o.text for o in ask(model, request("?", "a", (0, 1)))] == ["s0", "s1"]
    assert ask(model, request("?", "a", role="goal"))[0].text == "g"
    missing = ask(model, request("?", "a", (2,)))[0]
    assert "holds no solution 2 for problem a" in missing.message


def test_other_content_is_another_identity(write_jsonl) -> None:
    one = backend(write_jsonl("a.jsonl", [{"id": "a", "completion": "x"}]))
    two = backend(write_jsonl("b.jsonl", [{"id": "a", "completion": "y"}]))
    assert one.identity(request("?")) != two.identity(request("?"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "completion": "x"}\n{"id": "b", "compl', r"r.jsonl:2: no valid JSON .* cut off"),
        ('{"id": "a"}\n', r"r.jsonl:1: no text in column 'completion'; columns: id"),
        ('{"completion": "x"}\n', r"r.jsonl:1: neither 'id' nor 'question'"),
        ("[1]\n", r"r.jsonl:1: a row must be an object"),
    ],
)
def test_broken_files_are_refused_with_their_line(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        backend(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        backend(tmp_path / "none.jsonl")
