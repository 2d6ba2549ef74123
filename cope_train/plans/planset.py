"""A plan set: collected plans with what they did for the executor, as a `datasets` folder with a card."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cope_train.errors import UserError
from cope_train.plans.lint import RULES
from cope_train.records import PlanKind


@dataclass(frozen=True, slots=True)
class Plan:
    """One collected plan. `solutions` are the executor's right solutions under it; failures are in neither count."""

    problem_id: str
    question: str
    kind: PlanKind
    index: int
    plan: str
    planner: str
    executor: str
    samples: int
    successes: int
    success_rate: float | None
    lint: tuple[str, ...]
    kept: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    prompt_hash: str
    solutions: tuple[str, ...] = ()


def save(plans: Sequence[Plan], folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the set so that `datasets.load_dataset(folder)` reads it; replaces what was there, all or nothing."""
    from datasets import Dataset

    if not plans:
        raise UserError("no plan was collected: every call failed, or there were no problems; see the run's log")
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "data").mkdir(parents=True)
    rows = [asdict(plan) | {"lint": list(plan.lint), "solutions": list(plan.solutions)} for plan in plans]
    Dataset.from_list(rows).to_parquet(fresh / "data" / "train.parquet")
    (fresh / "README.md").write_text(_card(plans, facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def load(folder: Path) -> list[Plan]:
    """Read a plan set back. Raises UserError when there is none."""
    import pyarrow.parquet

    path = folder / "data" / "train.parquet"
    if not path.exists():
        raise UserError(f"{folder} holds no plan set; collect one first (cope-train collect)")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [Plan(**row | {"lint": tuple(row["lint"]), "solutions": tuple(row["solutions"])}) for row in rows]


def summary(plans: Sequence[Plan]) -> dict[str, dict[str, Any]]:
    """Per kind: plans, kept, mean success rate of the clean ones, and how many break each lint rule."""
    result = {}
    for kind in sorted({plan.kind for plan in plans}):
        mine = [plan for plan in plans if plan.kind == kind]
        rates = [plan.success_rate for plan in mine if plan.success_rate is not None]
        broken = Counter(rule for plan in mine for rule in plan.lint)
        result[kind] = {
            "plans": len(mine),
            "kept": sum(plan.kept for plan in mine),
            "success_rate": sum(rates) / len(rates) if rates else None,
            "lint": {rule: broken[rule] for rule in RULES if broken[rule]},
        }
    return result


def _card(plans: Sequence[Plan], facts: Mapping[str, Any]) -> str:
    lines = [
        *("---", "configs:", "- config_name: default", "  data_files: data/train.parquet", "---", "# Plan set", ""),
        f"{len(plans)} plans for {len({plan.problem_id for plan in plans})} problems, written by `{plans[0].planner}` "
        f"and tried by `{plans[0].executor}`.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        *("", "| kind | plans | kept | executor succeeds | lint |", "|---|---|---|---|---|"),
    ]
    for kind, row in summary(plans).items():
        rate = "-" if row["success_rate"] is None else f"{row['success_rate']:.1%}"
        broken = ", ".join(f"{rule} {count}" for rule, count in row["lint"].items()) or "none"
        lines.append(f"| {kind} | {row['plans']} | {row['kept']} | {rate} | {broken} |")
    columns = {
        "plan, kind, index": "the plan's text, its kind, and which of the samples it is",
        "samples, successes, success_rate": "the executor's tries with this plan and how many were right",
        "lint": "; ".join(f"*{rule}*: {what}" for rule, what in RULES.items()),
        "kept": "clean, and the executor succeeds often enough with it",
        "solutions": "the executor's right solutions under the plan",
        "prompt_hash": "SHA-256 of the planner's prompt file",
    }
    lines += ["", "## Columns", "", *(f"- `{name}`: {what}" for name, what in columns.items()), ""]
    return "\n".join(lines)
