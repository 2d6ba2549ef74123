"""The headline says what the figures carry, in every case that they can take."""

from __future__ import annotations

from typing import Any

import pytest

from cope_train.evaluation.headline import headline


def row(accuracy: float | None = 0.6, usd: float | None = 50.0, no_large: float | None = 0.4) -> dict[str, Any]:
    interval = None if accuracy is None else (accuracy - 0.05, accuracy + 0.05)
    return {"accuracy": accuracy, "accuracy_ci95": interval, "usd_per_million": usd, "no_large_call_share": no_large}


def pair(name: str, gap: float | None, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {
        "strategy": name,
        "against": "cope",
        "accuracy_difference": gap,
        "accuracy_difference_ci95": None if gap is None else (low, high),
        "usd_ratio": 0.5,
        "noninferiority_margin": 0.02,
        "noninferior": low > -0.02,
        "power": 0.8,
    } | more


def said(*pairs: dict[str, Any], thresholds: Any = "paper", **rows: dict[str, Any]) -> list[str]:
    names = {name.replace("_at_", "@").replace("_star", "*"): value for name, value in rows.items()}
    strategies = {"large": row(0.9, 100.0, 0.0), "cope": row()} | {p["strategy"]: row(0.7, 25.0) for p in pairs} | names
    report = {"strategies": strategies, "comparisons": list(pairs), "thresholds": thresholds}
    return headline(report, "cope")


def test_the_large_model_and_the_cascade_come_first() -> None:
    assert said() == [
        "The large model alone: 90.0 % right [85.0, 95.0], 100 USD per million problems.",
        "Untrained cope: 60.0 % right [55.0, 65.0], 50 USD per million problems, 40.0 % without the large model.",
    ]


def test_without_large_model_or_cascade_every_strategy_is_named() -> None:
    strategies = {"small-single": row(0.3, None, None), "cope": row()}
    report = {"strategies": strategies, "comparisons": [], "thresholds": "paper"}
    assert headline(report, "cope") == [
        "small-single: 30.0 % right [25.0, 35.0], cost unknown.",
        "cope: 60.0 % right [55.0, 65.0], 50 USD per million problems.",
    ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pair("cope@planner", 0.1, 0.04, 0.16), "more accurate by +10.0 points [+4.0, +16.0], 50.0 % of its cost."),
        (pair("cope@planner", -0.1, -0.16, -0.04), "less accurate by -10.0 points [-16.0, -4.0], 50.0 % of its cost."),
        (
            pair("cope@planner", 0.0, -0.03, 0.03),
            "no clear difference in accuracy (+0.0 points [-3.0, +3.0]; not shown to be non-inferior at a margin of "
            "2 points, power 80 %), 50.0 % of its cost.",
        ),
        (
            pair("cope@planner", 0.01, -0.01, 0.03, power=None),
            "no clear difference in accuracy (+1.0 points [-1.0, +3.0]; non-inferior at a margin of 2 points, power "
            "unknown), 50.0 % of its cost.",
        ),
        # An interval that touches nothing is no clear difference.
        (pair("cope@planner", 0.05, 0.0, 0.1), "no clear difference in accuracy (+5.0 points [+0.0, +10.0]; "),
        (pair("cope@planner", 0.1, 0.04, 0.16, usd_ratio=None), "[+4.0, +16.0], cost unknown."),
        (pair("cope@planner", 0.1, 0.04, 0.16, usd_ratio=1.25), "[+4.0, +16.0], 125.0 % of its cost."),
    ],
)
def test_what_training_did(found: dict, words: str) -> None:
    *_, heading, sentence = said(found)
    assert heading == "At the paper's thresholds:"
    assert sentence.startswith(
        "  with a trained planner (cope@planner): 70.0 % right [65.0, 75.0], 25 USD per million problems, 40.0 % "
        "without the large model; against untrained cope "
    )
    assert words in sentence


def test_fitted_thresholds_have_a_part_of_their_own() -> None:
    names = ("cope@both", "cope@planner", "cope*", "cope*@executor")
    # They are held against the large model, whose accuracy they were fitted to.
    against = [{"against": "large"} if "*" in name else {} for name in names]
    lines = said(*(pair(name, 0.1, 0.04, 0.16, **other) for name, other in zip(names, against, strict=True)))
    assert "; against the large model more accurate by +10.0 points" in lines[-1]
    starts = [line.split("(")[0].strip() for line in lines[2:]]
    assert starts == [
        "At the paper's thresholds:",
        "with a trained planner",
        "with both adapters",
        "At thresholds fitted on the calibration split:",
        "with no training",
        "with a trained executor",
    ]


def test_unknown_costs() -> None:
    lines = said(large=row(0.9, None, 0.0))
    assert lines[0] == "The large model alone: 90.0 % right [85.0, 95.0], cost unknown."


def test_nothing_but_failures() -> None:
    dead = row(None, None, None)
    lines = said(pair("cope@planner", None, 0, 0), cope=dead, cope_at_planner=dead)
    assert lines == [
        "The large model alone: 90.0 % right [85.0, 95.0], 100 USD per million problems.",
        "Untrained cope: no problem could be answered.",
    ]


def test_thresholds_of_the_recipes_own_are_not_called_the_papers() -> None:
    found = pair("cope@planner", 0.1, 0.04, 0.16)
    assert "At the paper's thresholds:" in said(found)
    assert "At the recipe's thresholds:" in said(found, thresholds={"stage1": 0.9})
