"""The report as data: `report.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cope_train.evaluation import stats
from cope_train.evaluation.lines import Line
from cope_train.recipe.schema import Evaluate

SCHEMA_VERSION = 1


def summarise(
    lines: Sequence[Line],
    section: Evaluate,
    order: Sequence[str],
    seeds: Sequence[int],
    against: Sequence[str],
    levels: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Everything the report says in figures. Accuracies are 0-1; null where a cost is unknown.

    `order` holds the problems' ids in the order of the lines' rows; each line is compared with those in `against`.
    """
    by_name = {line.name: line for line in lines}
    return {
        "schema_version": SCHEMA_VERSION,
        "n": len(order),
        "seeds": list(seeds),
        "strategies": {line.name: _strategy(line, section.resamples) for line in lines},
        "comparisons": [
            compare(line, by_name[other], section)
            for other in against
            if other in by_name
            for line in lines
            if line.name != other
        ],
        "by_level": _by_level(lines, order, levels or {}),
    }


def _strategy(line: Line, resamples: int) -> dict[str, Any]:
    accuracy = stats.accuracy(line.outcomes, resamples)
    cost = stats.mean(line.usd * 1e6, resamples) if line.usd is not None else stats.Estimate(None, None)
    worst = float(np.nan_to_num(line.outcomes, nan=0.0).mean()) if line.outcomes.size else None
    return {
        "accuracy": accuracy.value,
        "accuracy_ci95": accuracy.interval,
        "accuracy_worst_case": worst,
        "usd_per_million": cost.value,
        "usd_per_million_ci95": cost.interval,
        "stage_share": dict(line.share),
        "large_calls_per_problem": line.large_calls,
        "no_large_call_share": line.no_large,
        "small_tokens": line.small_tokens,
        "large_tokens": line.large_tokens,
        "seconds": line.seconds,
        "unparseable": line.unparseable,
        "failures": line.failures,
        "accepted": dict(line.accepted),
    }


def compare(one: Line, two: Line, section: Evaluate) -> dict[str, Any]:
    """One line against another over the same problems and seeds."""
    gap = stats.difference(one.outcomes, two.outcomes, section.resamples)
    known = one.usd is not None and two.usd is not None
    cost = stats.ratio(one.usd, two.usd, section.resamples) if known else stats.Estimate(None, None)
    return {
        "strategy": one.name,
        "against": two.name,
        "accuracy_difference": gap.value,
        "accuracy_difference_ci95": gap.interval,
        "usd_ratio": cost.value,
        "usd_ratio_ci95": cost.interval,
        "mcnemar_p": stats.mcnemar(one.outcomes, two.outcomes),
        "noninferiority_margin": section.margin,
        "noninferior": None if gap.interval is None else gap.interval[0] > -section.margin,
        "power": stats.power(one.outcomes, two.outcomes, section.margin),
    }


def _by_level(lines: Sequence[Line], order: Sequence[str], levels: Mapping[str, str | None]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for level in sorted({level for level in levels.values() if level is not None}):
        rows = [row for row, problem in enumerate(order) if levels.get(problem) == level]
        means = {line.name: stats.per_problem(line.outcomes[rows]) for line in lines}
        accuracy = {name: float(np.nanmean(m)) for name, m in means.items() if not np.isnan(m).all()}
        table[level] = {"n": len(rows), "accuracy": accuracy}
    return table
