"""The schema of report.json, which others read."""

from __future__ import annotations

import json

import pytest

from cope_train.evaluation.lines import Line, from_traces
from cope_train.evaluation.summary import compare, summarise
from cope_train.recipe.schema import Evaluate
from tests.evaluation.made import FAILURE, PRICES, RIGHT, UNPARSEABLE, WRONG, stage, trace, used

ORDER = [f"p{i}" for i in range(6)]
SECTION = Evaluate(margin=0.02, resamples=100)
STRATEGY = {
    "accuracy",
    "accuracy_ci95",
    "accuracy_worst_case",
    "usd_per_million",
    "usd_per_million_ci95",
    "stage_share",
    "large_calls_per_problem",
    "no_large_call_share",
    "small_tokens",
    "large_tokens",
    "seconds",
    "unparseable",
    "failures",
    "accepted",
}
COMPARISON = {
    "strategy",
    "against",
    "accuracy_difference",
    "accuracy_difference_ci95",
    "usd_ratio",
    "usd_ratio_ci95",
    "mcnemar_p",
    "noninferiority_margin",
    "noninferior",
    "power",
}


def line(name: str, verdicts: list, model: str = "large", known=PRICES) -> Line:
    traces = [trace(p, stage("solve", v, usage={model: used()})) for p, v in zip(ORDER, verdicts, strict=True)]
    return from_traces(name, traces, ORDER, known, "large")


LARGE = line("large", [RIGHT] * 5 + [WRONG])
COPE = line("cope", [RIGHT, RIGHT, FAILURE, WRONG, UNPARSEABLE, WRONG])
SMALL = line("small-single", [WRONG] * 6, "small")


def test_the_report_has_the_keys_of_its_schema() -> None:
    levels = {"p0": "easy", "p1": "easy", "p2": "hard", "p3": "hard", "p4": "hard", "p5": None}
    report = summarise([SMALL, LARGE, COPE], SECTION, ORDER, [0], ["cope", "large"], levels)
    assert set(report) == {"schema_version", "n", "seeds", "strategies", "comparisons", "by_level"}
    assert (report["schema_version"], report["n"], report["seeds"]) == (1, 6, [0])
    assert list(report["strategies"]) == ["small-single", "large", "cope"]
    assert all(set(row) == STRATEGY for row in report["strategies"].values())
    assert all(set(row) == COMPARISON for row in report["comparisons"])
    assert report["by_level"]["easy"] == {"n": 2, "accuracy": {"small-single": 0.0, "large": 1.0, "cope": 1.0}}
    assert report["by_level"]["hard"]["accuracy"]["cope"] == 0  # p2 failed, p3 and p4 are wrong
    assert json.loads(json.dumps(report, allow_nan=False))["n"] == 6


def test_figures_of_a_strategy() -> None:
    row = summarise([COPE], SECTION, ORDER, [0], [])["strategies"]["cope"]
    assert row["accuracy"] == pytest.approx(2 / 5)
    assert row["accuracy_worst_case"] == pytest.approx(2 / 6)
    assert (row["unparseable"], row["failures"]) == (1, 1)
    assert row["usd_per_million"] == pytest.approx(10 * 0.15 + 5 * 0.60)
    assert (row["large_calls_per_problem"], row["no_large_call_share"]) == (1, 0)


def test_unknown_costs_are_null() -> None:
    unknown = line("cope", [RIGHT] * 6, known={"large": None})
    report = summarise([unknown, LARGE], SECTION, ORDER, [0], ["large"])
    row, pair = report["strategies"]["cope"], report["comparisons"][0]
    assert [row["usd_per_million"], row["usd_per_million_ci95"]] == [None, None]
    assert [pair["usd_ratio"], pair["usd_ratio_ci95"]] == [None, None]
    assert pair["accuracy_difference"] == pytest.approx(1 / 6)
    assert report["strategies"]["large"]["usd_per_million"] is not None


def test_every_line_is_compared_with_those_that_are_there() -> None:
    report = summarise([SMALL, LARGE, COPE], SECTION, ORDER, [0], ["cope", "nobody", "large"])
    assert [(pair["strategy"], pair["against"]) for pair in report["comparisons"]] == [
        ("small-single", "cope"),
        ("large", "cope"),
        ("small-single", "large"),
        ("cope", "large"),
    ]


def test_a_comparison_is_paired_and_says_whether_it_is_non_inferior() -> None:
    pair = compare(COPE, LARGE, SECTION)
    assert pair["accuracy_difference"] == pytest.approx(-2 / 5)  # p2 is left out of both
    assert pair["mcnemar_p"] == pytest.approx(0.5)  # no win, two losses
    assert (pair["usd_ratio"], pair["noninferior"], pair["noninferiority_margin"]) == (1.0, False, 0.02)
    assert compare(SMALL, LARGE, SECTION)["usd_ratio"] == 0
    assert compare(LARGE, SMALL, SECTION)["usd_ratio"] is None  # the small model is free
    # The claim is that the interval's lower end lies above minus the margin, no more and no less.
    low = pair["accuracy_difference_ci95"][0]
    assert compare(COPE, LARGE, Evaluate(margin=-low + 0.01, resamples=100))["noninferior"] is True
    assert compare(COPE, LARGE, Evaluate(margin=-low - 0.01, resamples=100))["noninferior"] is False


def test_nothing_but_failures() -> None:
    dead = line("cope", [FAILURE] * 6)
    report = summarise([dead, LARGE], SECTION, ORDER, [0], ["large"], dict.fromkeys(ORDER, "all"))
    row, pair = report["strategies"]["cope"], report["comparisons"][0]
    assert (row["accuracy"], row["accuracy_ci95"], row["accuracy_worst_case"], row["failures"]) == (None, None, 0, 6)
    assert (pair["accuracy_difference"], pair["noninferior"], pair["power"], pair["mcnemar_p"]) == (None,) * 4
    assert report["by_level"]["all"]["accuracy"] == {"large": pytest.approx(5 / 6)}
    json.dumps(report, allow_nan=False)
