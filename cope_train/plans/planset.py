"""A plan set: collected plans with what they did for the executor, as a `datasets` folder with a card."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from cope_train.errors import UserError
from cope_train.plans.lint import RULES
from cope_train.records import PlanKind

_GROUP = 5000  # rows of a group in the file, and of what is held at once


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


def save(plans: Iterable[Plan], folder: Path, facts: Mapping[str, Any]) -> Tally:
    """Write the set so that `datasets.load_dataset(folder)` reads it; replaces what was there, all or nothing.

    Plans are taken as they come and held a group of rows at a time. Returns what they add up to; raises UserError when
    there are none.
    """
    import pyarrow
    import pyarrow.parquet

    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "data").mkdir(parents=True)
    schema = _columns()
    tally, source = Tally(), iter(plans)
    with pyarrow.parquet.ParquetWriter(fresh / "data" / "train.parquet", schema) as file:
        while group := list(islice(source, _GROUP)):
            tally.add(group)
            file.write_table(pyarrow.Table.from_pylist([asdict(plan) for plan in group], schema))
    if not tally.plans:
        raise UserError("no plan was collected: every call failed, or there were no problems; see the run's log")
    (fresh / "README.md").write_text(_card(tally, facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return tally


def _columns():
    """The columns' types, in the order of `Plan`."""
    import pyarrow as pa

    texts, known = pa.list_(pa.string()), {"index": pa.int64(), "samples": pa.int64(), "successes": pa.int64()}
    known |= {"success_rate": pa.float64(), "kept": pa.bool_(), "lint": texts, "solutions": texts}
    known |= {"prompt_tokens": pa.int64(), "completion_tokens": pa.int64()}
    return pa.schema([(field.name, known.get(field.name, pa.string())) for field in fields(Plan)])


def load(folder: Path) -> list[Plan]:
    """Read a plan set back. Raises UserError when there is none."""
    import pyarrow.parquet

    path = folder / "data" / "train.parquet"
    if not path.exists():
        raise UserError(f"{folder} holds no plan set; collect one first (cope-train collect)")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [Plan(**row | {"lint": tuple(row["lint"]), "solutions": tuple(row["solutions"])}) for row in rows]


class Tally:
    """What plans add up to, by kind; plans come in groups and are not kept."""

    def __init__(self) -> None:
        self.plans = self.problems = 0
        self.planner = self.executor = ""
        self._seen: dict[str, dict[str, Any]] = {}
        self._last = None

    def add(self, plans: Iterable[Plan]) -> None:
        """Count some plans; those of one kind and problem come one after the other."""
        for plan in plans:
            row = self._seen.setdefault(
                plan.kind, {"plans": 0, "kept": 0, "rates": 0.0, "rated": 0, "lint": Counter(), "problems": 0}
            )
            self.planner, self.executor = plan.planner, plan.executor
            self.plans += 1
            row["plans"] += 1
            row["kept"] += plan.kept
            row["rates"] += plan.success_rate or 0.0
            row["rated"] += plan.success_rate is not None
            row["lint"].update(plan.lint)
            row["problems"] += (plan.kind, plan.problem_id) != self._last
            self._last = (plan.kind, plan.problem_id)
        self.problems = max((row["problems"] for row in self._seen.values()), default=0)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per kind: plans, kept, mean success rate of the clean ones, and how many break each lint rule."""
        return {
            kind: {
                "plans": row["plans"],
                "kept": row["kept"],
                "success_rate": row["rates"] / row["rated"] if row["rated"] else None,
                "lint": {rule: row["lint"][rule] for rule in RULES if row["lint"][rule]},
            }
            for kind, row in sorted(self._seen.items())
        }


def _card(tally: Tally, facts: Mapping[str, Any]) -> str:
    lines = [
        *("---", "configs:", "- config_name: default", "  data_files: data/train.parquet", "---", "# Plan set", ""),
        f"{tally.plans} plans for {tally.problems} problems, written by `{tally.planner}` and tried by "
        f"`{tally.executor}`.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        *("", "| kind | plans | kept | executor succeeds | lint |", "|---|---|---|---|---|"),
    ]
    for kind, row in tally.summary().items():
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
