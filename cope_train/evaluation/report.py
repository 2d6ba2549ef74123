"""Writing the report: report.json as it is, report.md and report.html from the same tables."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from cope_train.evaluation import plots
from cope_train.evaluation.headline import headline

_HERE = Path(__file__).parent
Table = dict[str, Any]


def write(
    folder: Path,
    report: Mapping[str, Any],
    sweeps: Mapping[str, list[dict[str, Any]]],
    examples: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> None:
    """Write report.json, report.md, report.html and plots/ into a run's folder."""
    plots.frontier(report, sweeps, folder / "plots" / "frontier.png")
    plots.stages(report, folder / "plots" / "stages.png")
    values = {
        "report": report,
        "headline": headline(report, report["cascade"]),
        "tables": _tables(report),
        "examples": examples,
        "notes": notes,
        "pictures": {name: _embedded(folder / "plots" / f"{name}.png") for name in ("frontier", "stages")},
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for name, escape in (("report.md", False), ("report.html", True)):
        jinja = Environment(loader=FileSystemLoader(_HERE), autoescape=escape, trim_blocks=True, lstrip_blocks=True)
        text = jinja.get_template(f"{name}.jinja").render(values)
        (folder / name).write_text(text, encoding="utf-8")


def _tables(report: Mapping[str, Any]) -> list[Table]:
    tables = [_strategies(report), _comparisons(report)]
    if report["by_level"]:
        tables.append(_levels(report))
    if report["calibration"]:
        tables.append(_calibration(report))
    return tables


def _strategies(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            name,
            _percent(row["accuracy"]),
            _interval(row["accuracy_ci95"], 100),
            _number(row["usd_per_million"], 1),
            _interval(row["usd_per_million_ci95"], 1),
            " / ".join(f"{100 * share:.0f}" for share in row["stage_share"].values()),
            _number(row["large_calls_per_problem"], 2),
            _number(row["large_tokens"], 0),
            _number(row["small_tokens"], 0),
            _number(row["seconds"], 2),
            f"{row['unparseable']} / {row['failures']}",
        ]
        for name, row in report["strategies"].items()
    ]
    head = "strategy|accuracy %|95 %|USD per million|95 %|resolved at stage %|large calls|large tokens|small tokens"
    return _table("Strategies", head + "|seconds|unparseable / failures", rows)


def _comparisons(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            pair["strategy"],
            pair["against"],
            _number(pair["accuracy_difference"], 1, 100, sign=True),
            _interval(pair["accuracy_difference_ci95"], 100),
            _number(pair["usd_ratio"], 2),
            _interval(pair["usd_ratio_ci95"], 1, 2),
            _p(pair["mcnemar_p"]),
            {True: "yes", False: "not shown", None: "-"}[pair["noninferior"]],
            _percent(pair["power"], 0),
        ]
        for pair in report["comparisons"]
    ]
    head = "strategy|against|difference, points|95 %|cost ratio|95 %|McNemar p|non-inferior|power %"
    return _table("Paired comparisons", head, rows)


def _levels(report: Mapping[str, Any]) -> Table:
    levels = report["by_level"]
    rows = [
        [name, *(_percent(level["accuracy"].get(name)) for level in levels.values())] for name in report["strategies"]
    ]
    head = ["strategy", *(f"level {level} (n = {row['n']})" for level, row in levels.items())]
    return {"title": "Accuracy by level, %", "head": head, "rows": rows}


def _calibration(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            name,
            ", ".join(
                f"{stage} {'never' if value > 1 else format(value, '.3f')}"
                for stage, value in fit["thresholds"].items()
            ),
            _percent(fit["accuracy"]),
            _percent(fit["large_accuracy"]),
            f"{fit['cost']:.1f} {fit['unit']}",
            str(fit["problems"]),
            fit["rule"],
        ]
        for name, fit in report["calibration"].items()
    ]
    head = "cascade|thresholds|accuracy there %|large there %|cost there|n|chosen as"
    return _table("Thresholds fitted on the calibration split", head, rows)


def _table(title: str, head: str, rows: list[list[str]]) -> Table:
    return {"title": title, "head": head.split("|"), "rows": rows}


def _percent(share: float | None, digits: int = 1) -> str:
    return _number(share, digits, 100)


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else _number(value, 3)


def _number(value: float | None, digits: int, scale: float = 1, sign: bool = False) -> str:
    return "-" if value is None else f"{scale * value:{'+' if sign else ''},.{digits}f}"


def _interval(interval: Sequence[float] | None, scale: float, digits: int = 1) -> str:
    return "-" if interval is None else " to ".join(f"{scale * end:,.{digits}f}" for end in interval)


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
