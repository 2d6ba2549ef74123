"""The book of spend: a row for each call, what the rows add up to, and whether they agree with the completions."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from cope_train.records import Role

CallOutcome = Literal["answered", "failed", "retried"]


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the ledger: one call as sent, whatever came of it.

    `usd` is what was paid for its tokens, None when price or tokens are unknown; `compute_usd` what our own machine
    cost meanwhile: the two are never added. `error` is set when any of its samples failed; a call that is `retried`
    failed and settled nothing, since its samples are asked for again.
    """

    model: str
    role: Role
    problem_id: str
    seed: int
    samples: int
    stage: str | None = None
    verb: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    seconds: float | None = None
    usd: Decimal | None = None
    compute_usd: Decimal | None = None
    outcome: CallOutcome = "answered"
    error: str | None = None


COLUMNS = tuple(Call.__dataclass_fields__)


def row_of(call: Call) -> tuple:
    """A call's values in the order of `COLUMNS`; money as text, since SQLite has no decimals."""
    values = (getattr(call, name) for name in COLUMNS)
    return tuple(str(value) if isinstance(value, Decimal) else value for value in values)


def call_of(row: tuple) -> Call:
    """The call that a row of `COLUMNS` holds."""
    fields = dict(zip(COLUMNS, row, strict=True))
    money = {name: None if fields[name] is None else Decimal(fields[name]) for name in ("usd", "compute_usd")}
    return Call(**fields | money)


@dataclass(frozen=True, slots=True)
class Spend:
    """Totals of a run's calls. `usd` leaves out answered calls of unknown price, which `unpriced` counts.

    `balanced`: what every call was billed for is what its completions hold.
    """

    calls: int
    failed: int
    usd: Decimal
    unpriced: int
    balanced: bool
    compute_usd: Decimal = Decimal(0)


# Two tables, written from different figures. A prompt is billed once; one unknown count leaves a sum unknown.
UNBALANCED = """
    SELECT COUNT(*) FROM calls LEFT JOIN (
        SELECT call_id, MAX(json_extract(body, '$.prompt_tokens')) AS prompt,
            CASE WHEN COUNT(json_extract(body, '$.completion_tokens')) = COUNT(*)
            THEN SUM(json_extract(body, '$.completion_tokens')) END AS said
        FROM completions GROUP BY call_id
    ) ON call_id = calls.id
    WHERE (run = ?1 OR ?1 IS NULL) AND (prompt_tokens IS NOT prompt OR completion_tokens IS NOT said)"""
