"""The report's two plots: accuracy against cost, and where problems are resolved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_ADAPTERS = {"": "o", "@planner": "s", "@executor": "^", "@both": "D"}


def frontier(report: Mapping[str, Any], sweeps: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Every strategy with its 95 % intervals; thin lines are the best of all thresholds on the calibration split.

    Where every cost is unknown, accuracies alone.
    """
    rows = {name: row for name, row in report["strategies"].items() if row["accuracy"] is not None}
    figure, axes = _figure(7.6, 4.4)
    if all(row["usd_per_million"] is None for row in rows.values()):
        _bars(axes, rows)
    else:
        for name, sweep in sweeps.items():
            points = _upper(sweep)
            colour = _colour(name, rows)
            axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, lw=0.8, alpha=0.6, zorder=1)
        for name, row in rows.items():
            if row["usd_per_million"] is not None:
                _point(axes, name, row, _colour(name, rows))
        axes.set_xlabel("USD per million problems")
        axes.set_ylabel("accuracy, %")
        axes.grid(alpha=0.25)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    _save(figure, path)


def stages(report: Mapping[str, Any], path: Path) -> None:
    """Shares of the problems that each stage resolved, for strategies with more than one stage."""
    rows = {name: row["stage_share"] for name, row in report["strategies"].items() if len(row["stage_share"]) > 1}
    figure, axes = _figure(7.6, 0.9 + 0.34 * max(1, len(rows)))
    names = list(dict.fromkeys(stage for share in rows.values() for stage in share))
    labels = list(rows)[::-1]
    left = [0.0] * len(labels)
    for number, stage in enumerate(names):
        widths = [100 * rows[label].get(stage, 0.0) for label in labels]
        axes.barh(labels, widths, left=left, color=_COLOURS[number % len(_COLOURS)], label=stage, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of problems resolved, %")
    if names:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names), frameon=False, fontsize=8)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _point(axes: Any, name: str, row: Mapping[str, Any], colour: str) -> None:
    x, y = row["usd_per_million"], 100 * row["accuracy"]
    low, high = (100 * value for value in row["accuracy_ci95"])
    left, right = row["usd_per_million_ci95"]
    _, at, adapters = name.partition("@")
    axes.errorbar(
        x,
        y,
        # Where a bootstrap interval does not hold its own mean by a rounding, no bar is better than a negative one.
        xerr=[[max(0, x - left)], [max(0, right - x)]],
        yerr=[[max(0, y - low)], [max(0, high - y)]],
        fmt=_ADAPTERS.get(at + adapters, "o"),
        color=colour,
        mfc="white" if "*" in name else colour,
        ms=6,
        lw=0.9,
        capsize=2,
        label=name,
    )


def _bars(axes: Any, rows: Mapping[str, Any]) -> None:
    names = list(rows)[::-1]
    values = [100 * rows[name]["accuracy"] for name in names]
    errors = [
        [100 * max(0, rows[name]["accuracy"] - rows[name]["accuracy_ci95"][0]) for name in names],
        [100 * max(0, rows[name]["accuracy_ci95"][1] - rows[name]["accuracy"]) for name in names],
    ]
    axes.barh(names, values, xerr=errors, color=_COLOURS[0], height=0.6, capsize=3)
    axes.set_xlabel("accuracy, % (costs are unknown)")


def _colour(name: str, rows: Mapping[str, Any]) -> str:
    """One colour a strategy, whatever its adapters (which differ by marker) and thresholds (fitted ones are hollow)."""
    families = list(dict.fromkeys(_family(row) for row in rows))
    return _COLOURS[families.index(_family(name)) % len(_COLOURS)] if _family(name) in families else "#999999"


def _family(name: str) -> str:
    return name.partition("@")[0].replace("*", "")


def _upper(sweep: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """The sweep's choices that no other beats in both cost and accuracy, by rising cost; accuracy in %."""
    best, points = -1.0, []
    for row in sorted(sweep, key=lambda row: (row["cost"], -row["accuracy"])):
        if row["accuracy"] > best:
            best = row["accuracy"]
            points.append((row["cost"], 100 * best))
    return points


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
