"""The report's headline in words: nothing that the figures do not carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TRAINED = {"@planner": "a trained planner", "@executor": "a trained executor", "@both": "both adapters"}


def headline(report: Mapping[str, Any], cascade: str, large: str = "large") -> list[str]:
    """Sentences for people, from `report.json`: the large model, the cascade before, and after training."""
    rows = report["strategies"]
    sentences = []
    for name, words in ((large, "The large model alone"), (cascade, f"Untrained {cascade}")):
        if name in rows:
            sentences.append(f"{words}: {_figures(rows[name])}{_local(rows[name]) if name == cascade else ''}.")
    if len(sentences) < 2:
        sentences = [f"{name}: {_figures(row)}." for name, row in rows.items()]
    given = "the paper's thresholds" if report["thresholds"] == "paper" else "the recipe's thresholds"
    for star, thresholds in (("", given), ("*", "thresholds fitted on the calibration split")):
        # Fitted thresholds aim at the large model's accuracy, so that is what they are held against.
        against = (large, "the large model") if star else (cascade, f"untrained {cascade}")
        trained = {"": "no training"} | _TRAINED if star else _TRAINED
        lines = [_gain(report, f"{cascade}{star}{a}", *against, words) for a, words in trained.items()]
        if any(lines):
            sentences.append(f"At {thresholds}:")
            sentences += [f"  {line}" for line in lines if line]
    return sentences


def _figures(row: Mapping[str, Any]) -> str:
    if row["accuracy"] is None:
        return "no problem could be answered"
    low, high = row["accuracy_ci95"]
    cost = (
        "cost unknown" if row["usd_per_million"] is None else f"{row['usd_per_million']:.0f} USD per million problems"
    )
    return f"{_percent(row['accuracy'])} right [{100 * low:.1f}, {100 * high:.1f}], {cost}"


def _local(row: Mapping[str, Any]) -> str:
    return (
        ""
        if row["no_large_call_share"] is None
        else f", {_percent(row['no_large_call_share'])} without the large model"
    )


def _gain(report: Mapping[str, Any], name: str, other: str, called: str, words: str) -> str | None:
    pairs = [p for p in report["comparisons"] if p["strategy"] == name and p["against"] == other]
    if not pairs or pairs[0]["accuracy_difference"] is None:
        return None
    pair, row = pairs[0], report["strategies"][name]
    cost = "cost unknown" if pair["usd_ratio"] is None else f"{_percent(pair['usd_ratio'])} of its cost"
    return f"with {words} ({name}): {_figures(row)}{_local(row)}; against {called} {_verdict(pair)}, {cost}."


def _verdict(pair: Mapping[str, Any]) -> str:
    low, high = (100 * value for value in pair["accuracy_difference_ci95"])
    gap = f"{100 * pair['accuracy_difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if low > 0:
        return f"more accurate by {gap}"
    if high < 0:
        return f"less accurate by {gap}"
    margin = f"at a margin of {100 * pair['noninferiority_margin']:g} points"
    power = f"power {_percent(pair['power'], 0)}" if pair["power"] is not None else "power unknown"
    claim = "non-inferior" if pair["noninferior"] else "not shown to be non-inferior"
    return f"no clear difference in accuracy ({gap}; {claim} {margin}, {power})"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
