"""One SQLite file for a run's completions and calls: what a model said, and what asking cost.

Completions are keyed by identity and never change. Calls are the book of spend: every call that was sent, once,
whether it was answered, failed or both. A completion and its call are committed together before anybody sees them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from cope_train.records import Completion, Role, from_json, to_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, role TEXT NOT NULL, problem_id TEXT NOT NULL, seed INTEGER NOT NULL,
    samples INTEGER NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, usd TEXT, error TEXT);
CREATE TABLE IF NOT EXISTS completions (
    key TEXT PRIMARY KEY, call_id INTEGER NOT NULL REFERENCES calls (id), body TEXT NOT NULL) WITHOUT ROWID;
"""
_LOOKUP = 500  # SQLite's default limit of variables in a statement is far above this


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the ledger: one call as sent. `usd` is None when the price or the tokens are unknown.

    `error` is set when any of its samples failed.
    """

    model: str
    role: Role
    problem_id: str
    seed: int
    samples: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    usd: Decimal | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Spend:
    """Totals of the ledger. `usd` leaves out calls of unknown price, which `unpriced` counts."""

    calls: int
    failed: int
    usd: Decimal
    unpriced: int
    balanced: bool


class Store:
    """Completions and ledger of one run."""

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The completions that are there, by key."""
        found = {}
        for start in range(0, len(keys), _LOOKUP):
            part = keys[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, body FROM completions WHERE key IN ({marks})", part)
            found |= {key: from_json(Completion, body) for key, body in rows}
        return found

    def put(self, call: Call, completions: Mapping[str, Completion]) -> None:
        """Enter a call and what it brought, durably (a kill of the process after this loses nothing)."""
        values = (
            *(call.model, call.role, call.problem_id, call.seed, call.samples),
            *(call.prompt_tokens, call.completion_tokens, call.seconds),
            *(None if call.usd is None else str(call.usd), call.error),
        )
        with self._db:
            row = self._db.execute(f"INSERT INTO calls VALUES (NULL{',?' * len(values)})", values)
            self._db.executemany(
                "INSERT INTO completions VALUES (?, ?, ?)",
                [(key, row.lastrowid, to_json(completion)) for key, completion in completions.items()],
            )

    def calls(self) -> Iterable[Call]:
        """Every row of the ledger, in order."""
        columns = "model, role, problem_id, seed, samples, prompt_tokens, completion_tokens, seconds, usd, error"
        for *rest, usd, error in self._db.execute(f"SELECT {columns} FROM calls ORDER BY id"):
            yield Call(*rest, usd=None if usd is None else Decimal(usd), error=error)

    def spend(self) -> Spend:
        """Totals, and whether what was billed for every call is what its completions hold."""
        calls = list(self.calls())
        priced = [call for call in calls if call.usd is not None]
        total = sum((call.usd for call in priced), Decimal(0))
        failed = sum(call.error is not None for call in calls)
        return Spend(len(calls), failed, total, len(calls) - len(priced), self._tokens_agree())

    def _tokens_agree(self) -> bool:
        # Two tables, written from different figures. A prompt is billed once; one unknown count leaves a sum unknown.
        query = """
            SELECT COUNT(*) FROM calls LEFT JOIN (
                SELECT call_id, MAX(json_extract(body, '$.prompt_tokens')) AS prompt,
                    CASE WHEN COUNT(json_extract(body, '$.completion_tokens')) = COUNT(*)
                    THEN SUM(json_extract(body, '$.completion_tokens')) END AS said
                FROM completions GROUP BY call_id
            ) ON call_id = calls.id
            WHERE prompt_tokens IS NOT prompt OR completion_tokens IS NOT said"""
        return self._db.execute(query).fetchone()[0] == 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()
