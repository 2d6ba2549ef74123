"""What users get wrong, typed by hand: each a clear message, exit code 2, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import make_model
from tests.e2e.conftest import TINY
from tests.models.server import Server, completion

BASE = """\
schema: 1
name: small-test
task: math
data:
  train: {{source: {train}, split: train}}
  test: {{source: {test}, split: test}}
models:
  small: {{backend: recorded, path: {test}, fields: {{completion: answer}}}}
  large: {{backend: recorded, path: {test}, fields: {{completion: answer}}}}
evaluate: {{strategies: [small-single, large]}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """A recipe over two small files of ours; arguments replace parts of its text or of the files."""

    def write(train: str | None = None, test: str | None = None, **changes: str) -> Path:
        rows = {
            "train.jsonl": train if train is not None else _rows("What is one and {}?", 4),
            "test.jsonl": test if test is not None else _rows("What is two and {}?", 4),
        }
        for name, text in rows.items():
            (tmp_path / name).write_text(text)
        text = BASE.format(train=tmp_path / "train.jsonl", test=tmp_path / "test.jsonl")
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def _rows(question: str, count: int) -> str:
    return "".join(
        json.dumps({"question": question.format(i), "answer": f"\\boxed{{{i + 2}}}"}) + "\n" for i in range(count)
    )


def test_the_recipe_of_these_tests_is_right(cope: Callable, recipe: Callable) -> None:
    typed = cope("evaluate", recipe())
    assert typed.code == 0, typed.err


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["train.planner.learnig_rate=1e-4"], ["train.planner.learnig_rate", "did you mean learning_rate"]),
        (["train.planner.epochs=many"], ["train.planner.epochs", "must be a", "many"]),
        (["evaluate.strategies=[cope, cop]"], ["evaluate.strategies", "cop", "cope"]),
        (["cascade.thresholds.stage1=-0.5"], ["cascade.thresholds.stage1", "at least 0"]),
        (["models.small.path=/nowhere/model"], ["/nowhere/model", "no such folder"]),
        (["models.small.path=lab/smal"], ["lab/smal", "small"]),
        (["data.test.limit=0"], ["data.test.limit", "at least 1"]),
        (["data.test.split=tset"], ["tset", "test"]),
        (["plans.keep.executor=tiny"], ["plans.keep.executor", "tiny", "small"]),
        (["nonsense"], ["nonsense", "="]),
        (["--only", "judge"], ["judge", "planner"]),
    ],
)
def test_a_wrong_word_on_the_command_line(cope: Callable, words: list, messages: list) -> None:
    typed = cope("check", TINY, *words)
    assert typed.code == 2, typed.out
    for message in messages:
        assert message in typed.err.replace("\n", " "), typed.err
    assert "Traceback" not in typed.err


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (("task: math", "task: math\nlearnig_rate: 1"), ["recipe.yaml:4", "learnig_rate", "unknown key"]),
        (("task: math", "task: math\ntask: math"), ["recipe.yaml:4", "task", "line 3"]),
        (("schema: 1", "schema: one"), ["recipe.yaml:1", "schema"]),
        (("backend: recorded", "backend: recorder"), ["recipe.yaml:8", "recorded"]),
        (("name: small-test\n", ""), ["name", "missing"]),
        (("task: math", "task: [math"), ["recipe.yaml:"]),
    ],
)
def test_a_wrong_recipe_names_its_line(cope: Callable, recipe: Callable, change: tuple, messages: list) -> None:
    typed = cope("check", recipe(change=change))
    assert typed.code == 2
    for message in messages:
        assert message in typed.err, typed.err


def test_all_errors_come_at_once(cope: Callable, recipe: Callable) -> None:
    path = recipe(
        one=("task: math", "task: maths"), two=("evaluate:", "evaluat:"), three=("split: test", "splitt: test")
    )
    typed = cope("check", path)
    assert typed.code == 2
    for message in ("maths", "evaluat", "splitt"):
        assert message in typed.err


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        ({"test": ""}, ["test.jsonl", "no problem"]),
        ({"test": _rows("What is {}?", 2) + '{"question": "What'}, ["test.jsonl:3", "cut off"]),
        ({"test": '{"question": "What?"}\n'}, ["test.jsonl", "answer"]),
        ({"test": '{"questoin": "What?", "answer": "1"}\n'}, ["test.jsonl", "questoin"]),
        ({"train": _rows("What is two and {}?", 2)}, ["train", "test", "2 problems"]),
    ],
)
def test_bad_data_names_file_and_line(cope: Callable, recipe: Callable, files: dict, messages: list) -> None:
    typed = cope("evaluate", recipe(**files))
    assert typed.code == 2, typed.out
    for message in messages:
        assert message in typed.err, typed.err


def test_a_missing_file_and_a_missing_recipe(cope: Callable, recipe: Callable, tmp_path: Path) -> None:
    path = recipe()
    (tmp_path / "test.jsonl").unlink()
    for words in (["evaluate", path], ["check", "nowhere.yaml"]):
        typed = cope(*words)
        assert typed.code == 2
        assert "no such file" in typed.err.lower()


def test_a_folder_that_is_no_model(cope: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    typed = cope("check", TINY, f"models.small.path={tmp_path / 'empty'}")
    assert typed.code == 2
    assert "no config.json" in typed.err


def test_an_adapter_of_another_base(cope: Callable, finished: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    adapter = finished / "runs/quickstart/adapters/planner"
    typed = cope("check", TINY, f"models.small.path={other}", f"models.small.adapters.planner={adapter}")
    assert typed.code == 2
    assert "was trained on lab/small" in typed.err


@pytest.mark.parametrize("verb", ["train", "evaluate", "export"])
def test_a_verb_before_its_turn_says_which_comes_first(cope: Callable, verb: str) -> None:
    typed = cope(verb, TINY, "--limit", "4")
    assert typed.code == 2
    assert ("cope-train collect" if verb == "train" else "cope-train train") in typed.err


def test_a_folder_in_use_is_refused(cope: Callable, tmp_path: Path) -> None:
    from cope_train.recipe import load
    from cope_train.rundir import RunDir

    with RunDir.open(tmp_path / "busy", load(Path(TINY))):
        typed = cope("collect", TINY, "--out", "busy", "--limit", "4")
    assert typed.code == 2
    assert "in use" in typed.err


def test_check_on_real_models_says_what_is_missing_here(cope: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    typed = cope("check", "recipes/gsm8k/qwen2.5-1.5b.yaml")
    assert typed.code == 5
    for words in (
        "Missing on this machine",
        "OPENAI_API_KEY",
        "Qwen/Qwen2.5-1.5B-Instruct",
        "openai/gsm8k",
        "hub",
        "USD",
    ):
        assert words in typed.out


def test_schema_and_recipes(cope: Callable) -> None:
    schema = json.loads(cope("schema").out)
    assert schema["additionalProperties"] is False
    assert "schema" in schema["properties"]
    listed = cope("recipes").out
    assert "recipes/word_problems/tiny.yaml" in listed
    assert listed.count("shows:") == listed.count("needs:") == 3


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`served(reply)` starts a server and says how a recipe's model names it."""
    servers = []
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-to-hide")

    def start(reply: object) -> str:
        servers.append(Server(lambda body, n: reply))
        return f"{{backend: api, model: m, base_url: '{servers[-1].url}', retries: 0}}"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("reply", "messages"),
    [
        ((401, {"error": {"message": "bad key a-key-to-hide"}}), ["bad key <key>", "models.large.api_key_env"]),
        ((404, {"detail": "Not Found"}), ["Not Found", "models.large.base_url"]),
        ((404, {"error": {"message": "The model `m` does not exist"}}), ["does not exist", "models.large.model"]),
        (completion(["4"], model="other"), ["answered as other, not as m", "models.large.model"]),
    ],
)
def test_a_wrong_key_address_or_model_is_one_paragraph_that_names_the_field(
    cope: Callable, recipe: Callable, served: Callable, tmp_path: Path, reply: object, messages: list
) -> None:
    typed = cope("evaluate", recipe(), "--out", "run", f"models.large={served(reply)}")
    assert typed.code == 4, typed.out
    for message in messages:
        assert message in typed.err.replace("\n", " "), typed.err
    assert "Traceback" not in typed.err
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"a-key-to-hide" not in path.read_bytes(), path


def test_a_server_that_is_not_there_is_one_paragraph_too(
    cope: Callable, recipe: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    down = "{backend: api, model: m, base_url: 'http://127.0.0.1:9/v1', retries: 0}"
    typed = cope("evaluate", recipe(), "--out", "run", f"models.large={down}")
    assert typed.code == 4, typed.out
    for message in ("cannot be reached", "127.0.0.1:9", "models.large.base_url"):
        assert message in typed.err.replace("\n", " "), typed.err
    assert not (tmp_path / "run/report.json").exists()


def test_a_server_that_fails_is_no_wrong_answer_and_no_finished_run(
    cope: Callable, recipe: Callable, served: Callable, tmp_path: Path
) -> None:
    typed = cope("evaluate", recipe(), "--out", "run", f"models.large={served((500, {'error': 'down'}))}")
    assert typed.code == 4, typed.out
    assert "large: 4 of 4 problems could not be answered" in typed.err
    assert "the same command goes on from there" in typed.err
    assert not (tmp_path / "run/report.json").exists()


def test_the_few_answers_that_could_not_be_had_are_asked_for_again(
    cope: Callable, recipe: Callable, tmp_path: Path
) -> None:
    path = recipe(test=_rows("What is two and {}?", 10))
    rows = (tmp_path / "test.jsonl").read_text().splitlines(keepends=True)
    said = tmp_path / "said.jsonl"
    said.write_text("".join(rows[:9]))
    words = ("evaluate", path, "--out", "run", f"models.small.path={said}", f"models.large.path={said}")
    assert cope(*words).code == 0
    assert json.loads((tmp_path / "run/report.json").read_text())["strategies"]["large"]["failures"] == 1
    said.write_text("".join(rows))
    typed = cope(*words)
    assert "evaluate: done anew, because failed: 2 -> 0" in typed.out
    assert json.loads((tmp_path / "run/report.json").read_text())["strategies"]["large"]["failures"] == 0
    assert "evaluate: up to date" in cope(*words).out
