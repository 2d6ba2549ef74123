"""Recorded completions: found by id or question, missing ones are failures, broken files are refused."""

from __future__ import annotations

import pytest

from cope_train.errors import UserError
from cope_train.models.recorded import RecordedBackend
from cope_train.recipe.model_specs import RecordedModel
from cope_train.records import Failure, Message, Request, Sampling


def backend(path, **fields) -> RecordedBackend:
    return RecordedBackend("small", RecordedModel(backend="recorded", path=str(path), fields=fields))


def request(text: str, problem: str = "p", indices=(0,), role="solution") -> Request:
    return Request(problem, role, (Message("user", text),), Sampling(temperature=0.5), indices)


def ask(model: RecordedBackend, asked: Request):
    return next(model.generate([asked]))[1]


def test_found_by_question_at_the_start_of_the_prompt_with_dotted_columns(write_jsonl) -> None:
    rows = [{"q": "How many?", "sys": {"out": "four"}}, {"q": "How many?\nReally", "sys": {"out": "five"}}]
    model = backend(write_jsonl("r.jsonl", rows), question="q", completion="sys.out")
    assert ask(model, request("How many?"))[0].text == "four"
    assert ask(model, request("How many?\n\nGoal: count"))[0].text == "four"
    assert ask(model, request("How many?\nReally\nGoal: count"))[0].text == "five"  # the longest that fits
    for other in ("Something else", "How many? And of those?", "So:\nHow many?"):
        assert isinstance(ask(model, request(other))[0], Failure)


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


def test_rows_without_an_index_are_numbered_in_their_order(write_jsonl) -> None:
    rows = [{"question": "Q", "completion": "a"}, {"question": "Q", "completion": "b"}]
    rows += [{"question": "Q", "completion": "x", "index": 1}, {"question": "Q", "completion": "g", "role": "goal"}]
    rows += [{"id": "p1", "completion": "c"}, {"id": "p1", "completion": "d"}]
    model = backend(write_jsonl("r.jsonl", rows))
    assert [o.text for o in ask(model, request("Q", indices=(0, 1, 2)))] == ["a", "x", "b"]
    assert [o.text for o in ask(model, request("?", "p1", (0, 1)))] == ["c", "d"]


def test_a_sample_that_is_said_twice_is_refused(write_jsonl) -> None:
    rows = [{"id": "a", "index": 1, "completion": text} for text in "xy"]
    with pytest.raises(UserError, match="r.jsonl:2: solution 1 of 'a' stands on line 1 already"):
        backend(write_jsonl("r.jsonl", rows))
    rows = [{"id": name, "question": "Q", "index": 0, "completion": name} for name in "ab"]
    model = backend(write_jsonl("r.jsonl", rows))  # two problems that ask the same
    assert [ask(model, request("Q", name))[0].text for name in "ab"] == ["a", "b"]


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
        ('{"id": "a", "completion": "x", "role": ["goal"]}\n', r"r.jsonl:1: a role is one of goal, .*not \['goal'\]"),
        ('{"id": "a", "completion": "x", "index": [1]}\n', r"r.jsonl:1: an index is a whole number from 0, not \[1\]"),
        ('{"id": "a", "completion": "x", "index": -1}\n', r"r.jsonl:1: an index is a whole number from 0, not -1"),
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
