"""store: what a store holds and what it cost, and its completions as a file that the `recorded` backend reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from cope_train.errors import UserError
from cope_train.models.store import Store
from cope_train.recipe import load
from cope_train.rundir import RunDir

_TOTALS = """
    SELECT model, role, COUNT(*), SUM(outcome = 'failed'), SUM(outcome = 'retried'), SUM(prompt_tokens),
        SUM(completion_tokens), (SELECT COUNT(*) FROM completions JOIN calls c ON c.id = call_id
        WHERE c.model = calls.model AND c.role = calls.role) FROM calls GROUP BY model, role ORDER BY model, role"""
_COMPLETIONS = """
    SELECT problem_id, role, sample, seed, stage, model, json_extract(body, '$.text'), json_extract(body, '$.finish')
    FROM completions JOIN calls ON calls.id = call_id WHERE model = ?
    ORDER BY problem_id, role, sample, completions.id"""


def find(path: Path) -> Store:
    """The store of a run folder, or of a file. Raises UserError when there is none."""
    if path.is_dir():
        run = RunDir.read(path)
        shared = load(path / "recipe.yaml").store
        path = Path(shared) if shared else run.store
    if not path.is_file():
        raise UserError(f"{path}: no store there; give a run folder, or a store's file")
    return Store(path)


def lines(store: Store) -> Iterator[str]:
    """Size, counts by model and role, spend and failures, for people."""
    spend = store.spend()
    (completions,) = next(store.query("SELECT COUNT(*) FROM completions"))
    (runs,) = next(store.query("SELECT COUNT(DISTINCT run) FROM calls"))
    yield f"{store.path}: {store.path.stat().st_size / 1e6:.1f} MB, {completions:,} completions, calls of {runs} runs"
    for model, role, calls, failed, retried, prompt, said, held in store.query(_TOTALS):
        yield (
            f"{model}, {role}: {held:,} completions by {calls:,} calls ({failed} failed, {retried} retried), "
            f"{prompt or 0:,} prompt and {said or 0:,} completion tokens"
        )
    unknown = f", {spend.unpriced:,} calls of unknown price" if spend.unpriced else ""
    compute = f"; {spend.compute_usd:.6f} USD of our own machines" if spend.compute_usd else ""
    yield f"spend: {spend.usd:.6f} USD for {spend.calls:,} calls{unknown}{compute}"
    yield f"the ledger {'balances' if spend.balanced else 'DOES NOT BALANCE'} with the completions"


def export(store: Store, path: Path, model: str | None = None) -> int:
    """Write a model's completions as jsonl; how many there are.

    A row has `id`, `role`, `index` and `completion`, which the `recorded` backend reads, and `seed`, `stage`, `sample`,
    `model` and `finish` besides. That backend tells samples apart by index alone: where prompts, seeds or temperatures
    differ, samples of one problem and role are numbered through. Raises UserError unless it is clear which model.
    """
    models = [name for (name,) in store.query("SELECT DISTINCT model FROM calls ORDER BY model")]
    if model is None and len(models) == 1:
        model = models[0]
    if model not in models:
        asked = "several models" if model is None else f"no model {model}"
        raise UserError(f"{store.path} holds {asked}; name one with --model: {', '.join(models) or 'it is empty'}")
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for _, rows in groupby(store.query(_COMPLETIONS, (model,)), key=lambda row: row[:2]):
            for row in _numbered(list(rows)):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    return count


def _numbered(rows: list[tuple]) -> list[dict[str, Any]]:
    names = ("id", "role", "sample", "seed", "stage", "model", "completion", "finish")
    named = [dict(zip(names, row, strict=True)) for row in rows]
    clash = len({row["sample"] for row in named}) < len(named)
    return [row | {"index": place if clash else row["sample"]} for place, row in enumerate(named)]
