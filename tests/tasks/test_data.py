"""Loading problems: known columns, field maps, windows, and every kind of broken file by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cope_train.errors import NotRunnableHere, UserError
from cope_train.recipe.schema import Data
from cope_train.records import Problem
from cope_train.tasks.data import load, overlap

ROWS = [{"question": f"What is {i}?", "answer": f"so\n#### {i},000", "id": f"q{i}"} for i in range(1, 6)]


def source(path: Path, **fields) -> Data:
    return Data(source=str(path), **fields)


def test_gsm8k_answers_are_read_after_their_mark(write_jsonl) -> None:
    problems = load(source(write_jsonl("a.jsonl", ROWS)), "math")
    assert problems[0] == Problem("q1", "What is 1?", "1000")


def test_windows_do_not_change_ids(write_jsonl) -> None:
    rows = [{"problem": row["question"], "answer": "1", "level": 3} for row in ROWS]
    path = write_jsonl("a.jsonl", rows)
    whole = load(source(path, split="test"), "math")
    assert load(source(path, split="test", offset=2, limit=2), "math") == whole[2:4]
    assert (whole[2].id, whole[2].level) == ("test-00002", "3")


def test_fields_may_lie_deeper_and_be_called_otherwise(write_jsonl) -> None:
    path = write_jsonl("a.jsonl", [{"q": {"text": "Why?"}, "gold": 7, "question": "not this"}])
    (problem,) = load(source(path, fields={"question": "q.text", "answer": "gold"}), "math")
    assert (problem.question, problem.answer) == ("Why?", "7")


def test_json_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert load(source(tmp_path / "a.json"), "math") == load(source(tmp_path / "a.parquet"), "math")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "no problem in it"),
        ("a.jsonl", "\n\n", "no problem in it"),
        (
            "a.jsonl",
            json.dumps(ROWS[0]) + '\n{"question": "Wh',
            "a.jsonl:2: no valid JSON .* cut off after 1 good rows",
        ),
        ("a.jsonl", "[1, 2]\n", "a.jsonl:1: a row must be an object"),
        ("a.jsonl", '{"question": "Why?"}\n', "a.jsonl:1: no answer in column 'answer'; columns: question"),
        ("a.jsonl", '{"question": " ", "answer": "1"}\n', "a.jsonl:1: no question"),
        ("a.jsonl", '{"text": "Why?", "answer": "1"}\n', "no question in column 'question'; columns: text, answer"),
        ("a.jsonl", 2 * (json.dumps(ROWS[0]) + "\n"), "id 'q1' stands twice"),
        ("a.json", '{"question": 1}', "must hold a list of objects"),
        ("a.json", '[{"question"', "no valid JSON"),
        ("a.parquet", "nonsense", "no parquet file"),
        ("a.txt", "x", "must end in one of"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load(source(tmp_path / name), "math")


def test_text_that_is_not_utf8_is_named_by_line(tmp_path: Path) -> None:
    row = '{"question": "Où?", "answer": "1"}\n'
    (tmp_path / "a.jsonl").write_bytes(row.encode() + row.encode("latin-1"))
    with pytest.raises(UserError, match="a.jsonl:2: no UTF-8 text .* save the file as UTF-8"):
        load(source(tmp_path / "a.jsonl"), "math")
    (tmp_path / "a.json").write_bytes(f"[{row}]".encode("latin-1"))
    with pytest.raises(UserError, match="a.json: no UTF-8 text"):
        load(source(tmp_path / "a.json"), "math")


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a file in it that ends in one of .jsonl"):
        load(source(tmp_path), "math")


@pytest.mark.parametrize("answer", ["1.5", "twelve", "1/2"])
def test_word_problems_have_whole_numbers_as_answers(write_jsonl, answer: str) -> None:
    rows = [{"question": "How many?", "answer": gold} for gold in ("-3", answer)]
    with pytest.raises(UserError, match=f"a.jsonl:2: the answer of a word problem is a whole number, not '{answer}'"):
        load(source(write_jsonl("a.jsonl", rows)), "word_problems")
    assert len(load(source(write_jsonl("a.jsonl", rows)), "math")) == 2


def test_nothing_left_after_an_offset(write_jsonl) -> None:
    with pytest.raises(UserError, match="no problem in it after skipping 9"):
        load(source(write_jsonl("a.jsonl", ROWS), offset=9), "math")


def test_missing_files_unknown_fields_and_hubs_out_of_reach(tmp_path: Path, write_jsonl) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(source(tmp_path / "none.jsonl"), "math")
    with pytest.raises(UserError, match="no such file, and no hub id"):
        load(Data(source="none"), "math")
    with pytest.raises(UserError, match="unknown anwser; there are question, answer, id, level"):
        load(source(write_jsonl("a.jsonl", ROWS), fields={"anwser": "x"}), "math")
    with pytest.raises(NotRunnableHere, match="cannot be reached"):
        load(Data(source="openai/gsm8k", name="main"), "math")
    with pytest.raises(UserError, match="source lab holds word problems"):
        load(Data(source="lab"), "math")


def test_overlap_is_found_by_question_whatever_its_case_and_spaces() -> None:
    train = [Problem("a", "What is  ONE?"), Problem("b", "Two?"), Problem("c", "Three?")]
    test = [Problem("x", "what is one?"), Problem("y", "three? ")]
    (message,) = overlap({"train": train, "test": test, "calibration": [Problem("z", "Four?")]})
    assert "train and test share 2 problems (in train: a, c)" in message
    assert overlap({"train": train, "calibration": [Problem("a", "Other?")]}) == []
