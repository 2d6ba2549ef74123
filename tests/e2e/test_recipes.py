"""The shipped recipes that the quickstart is not: run small, on problems written here and models that are at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cope_train.lab import world
from tests.e2e.conftest import ROOT

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "gsm8k"
RECORDED = "recipes/gsm8k/recorded.yaml"
PROMPTS = ROOT / "cope_train" / "prompts" / "word_problems"
SYSTEMS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def problems(count: int, first: int = 0) -> list[dict]:
    """Problems in GSM8K's form."""
    return [
        {"question": f"Ann has {i} pens and finds {i}. How many has she?", "answer": f"{i} + {i}\n#### {2 * i}"}
        for i in range(first, first + count)
    ]


def evaluate_recorded(cope: Callable, test: Path, solutions: Path, *words: str) -> dict:
    paths = [f"data.test.source={test}", *(f"models.{name}.path={solutions}" for name in ("small", "large"))]
    typed = cope("evaluate", RECORDED, "--out", "run", *paths, *words)
    assert typed.code == 0, typed.err
    return json.loads(Path("run/report.json").read_text())


def test_recorded_answers_are_graded_and_cost_nothing_known(cope: Callable, write_jsonl: Callable) -> None:
    asked = problems(6)
    rows = [
        {
            "question": row["question"],
            "6b_verification": {"solution": f"A: {2 * i + (i > 2)}"},
            "175b_verification": {"solution": f"A: {2 * i + (i > 4)}"},
        }
        for i, row in enumerate(asked)
    ]
    report = evaluate_recorded(cope, write_jsonl("test.jsonl", asked), write_jsonl("solutions.jsonl", rows))
    found = {name: row["accuracy"] for name, row in report["strategies"].items()}
    assert found == {"small-single": 3 / 6, "large": 5 / 6, "random-escalation": pytest.approx(4 / 6)}
    assert {row["usd_per_million"] for row in report["strategies"].values()} == {None}
    assert report["comparisons"][0]["usd_ratio"] is None


@pytest.mark.parametrize("system", SYSTEMS)
def test_real_recorded_solutions_are_graded_as_their_graders_did(cope: Callable, system: str) -> None:
    test, solutions = SHARED / "test.jsonl", SHARED / "example_model_solutions.jsonl"
    if not solutions.exists():
        pytest.skip("GSM8K's recorded solutions do not lie beside this checkout")
    column = f"models.small.fields.completion={system}.solution"
    report = evaluate_recorded(cope, test, solutions, column, "evaluate.strategies=[small-single]")
    labels = [json.loads(line)[system]["is_correct"] for line in solutions.read_text().splitlines()]
    assert report["n"] == len(labels) == 1319
    assert report["strategies"]["small-single"]["accuracy"] == pytest.approx(sum(labels) / 1319)
    traces = Path("run/traces/test/small-single-seed0.jsonl").read_text().splitlines()
    verdicts = [json.loads(line) for line in traces]
    assert [trace["verdict"] == "right" for trace in verdicts] == labels


def test_the_recipe_for_real_models_runs_on_models_at_hand(cope: Callable, write_jsonl: Callable) -> None:
    """The lab pair in place of Qwen and the API, with the prompts and problems that it knows."""
    changes = []
    for split in ("train", "calibration", "test"):
        rows = [{"question": problem.question, "answer": problem.answer} for problem in world.problems(split, 4)]
        changes.append(f"data.{split}={{source: {write_jsonl(f'{split}.jsonl', rows)}, split: {split}}}")
    changes += [
        "models.small={backend: local, path: lab/small}",
        "models.large={backend: local, path: lab/large, price: {input: 0.15, output: 0.60}}",
        *(f"prompts.{role}={PROMPTS / role}.txt" for role in ("goal", "guideline", "solution")),
        *("sampling.goal.max_tokens=64", "sampling.guideline.max_tokens=96", "sampling.solution.max_tokens=192"),
        *("train.planner.bf16=false", "train.executor.bf16=false", "evaluate.adapters=[none, both]"),
    ]
    typed = cope("run", "recipes/gsm8k/qwen2.5-1.5b.yaml", "--out", "run", *changes)
    assert typed.code == 0, typed.out + typed.err
    report = json.loads(Path("run/report.json").read_text())
    assert {"cope", "cope*", "cope@both", "cope*@both", "random-escalation"} <= set(report["strategies"])
    assert report["strategies"]["large"]["accuracy"] > 0
    assert Path("run/export/executor/adapter_model.safetensors").exists()
