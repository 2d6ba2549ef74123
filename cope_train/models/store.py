"""One SQLite file for completions and calls: what models said, and what asking cost.

Completions are keyed by identity and never change. Calls are the book of spend: every call that was sent, once,
whether it was answered, failed or both. Both tables only ever grow. A completion and its call are committed together
before anybody sees them: that survives a kill of the process at once, and a power cut once the log file has been
synced, about once a second. Several runs and processes can share one store.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from cope_train.errors import UserError
from cope_train.models.keeper import Keeper
from cope_train.models.leases import SCHEMA as LEASES
from cope_train.models.leases import Leases
from cope_train.models.ledger import COLUMNS, UNBALANCED, Call, Spend, call_of, row_of
from cope_train.records import Completion, from_json, to_json

VERSION = 2
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, model TEXT NOT NULL, role TEXT NOT NULL, problem_id TEXT NOT NULL,
    seed INTEGER NOT NULL, samples INTEGER NOT NULL, stage TEXT, verb TEXT, prompt_tokens INTEGER,
    cached_tokens INTEGER, completion_tokens INTEGER, reasoning_tokens INTEGER, seconds REAL, usd TEXT,
    compute_usd TEXT, outcome TEXT NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS completions (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, call_id INTEGER NOT NULL REFERENCES calls (id),
    sample INTEGER NOT NULL, body TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS completions_by_key ON completions (key, call_id);
{LEASES}"""
_APPEND_ONLY = "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_no_{event} BEFORE {event} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the store only grows'); END;\n"
    for table in ("calls", "completions")
    for event in ("update", "delete")
)
_PATIENCE = 60.0  # seconds that others may keep the file busy
_LOOKUP = 500  # SQLite's default limit of variables in a statement is far above this


class Said(NamedTuple):
    """A completion under its key, and which sample of its request it is."""

    key: str
    sample: int
    completion: Completion


class _Entry(NamedTuple):
    call: Call
    said: Sequence[Said]
    settled: Sequence[str]


class Store:
    """Completions and ledger. Threads may share one; so may processes, each with its own object on the same file."""

    def __init__(self, path: Path | str, run: str | None = None) -> None:
        """`run` is written into every call, and `calls` and `spend` are that run's own; without one, everybody's.

        Raises UserError when the file is no store of this version.
        """
        self.path = Path(path)
        self.run = run
        self._lock, self._entries_lock = threading.RLock(), threading.Lock()
        self._entries: list[_Entry] = []
        self._entered = self._committed = 0
        self._db = _open(self.path)
        self._leases = Leases(self._db)
        self._wal = None
        self._keeper = Keeper(self.flush, self._sync, self._beat)

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The completions that are there, by key."""
        found = {}
        with self._lock:
            for start in range(0, len(keys), _LOOKUP):
                part = keys[start : start + _LOOKUP]
                marks = ",".join("?" * len(part))
                # Should a completion ever have been bought twice, the first one is served.
                query = f"SELECT key, body FROM completions WHERE key IN ({marks}) ORDER BY id DESC"
                found |= {key: from_json(Completion, body) for key, body in self._db.execute(query, part)}
        return found

    def claim(self, keys: Sequence[str]) -> tuple[dict[str, Completion], set[str]]:
        """Lease keys before they are bought: those stored by now, and those that another process is buying.

        Everything else is leased to this store until it is settled or released.
        """
        with self._writing():
            found = self.get(keys)
            held = self._leases.take([key for key in keys if key not in found])
        self._keeper.wake()  # it has a heart to keep beating
        return found, held

    def release(self, keys: Sequence[str]) -> None:
        """End leases on what will not be bought after all."""
        if keys:
            with self._writing():
                self._leases.give_back(keys)

    def enter(self, call: Call, said: Sequence[Said], settled: Sequence[str] = ()) -> int:
        """Enter a call, what it brought, and the keys whose leases end with it. Returns its number.

        It is committed with its neighbours within 20 ms, or at `flush`; nobody may see it before `committed` has
        reached its number.
        """
        if self._keeper.error:
            raise self._keeper.error
        with self._entries_lock:
            self._entries.append(_Entry(call, said, settled))
            self._entered += 1
            number = self._entered
        if number - self._committed == 1:
            self._keeper.wake()
        return number

    @property
    def committed(self) -> int:
        """The number up to which entries are committed."""
        return self._committed

    def flush(self) -> None:
        """Commit everything that was entered."""
        with self._lock:
            with self._entries_lock:
                entries, self._entries = self._entries, []
                number = self._entered
            if entries:
                with self._writing():
                    self._write(entries)
                self._committed = number

    def calls(self) -> Iterator[Call]:
        """Every row of the ledger, in order."""
        self.flush()
        query = f"SELECT {', '.join(COLUMNS)} FROM calls WHERE run = ?1 OR ?1 IS NULL ORDER BY id"
        yield from (call_of(row) for row in self._db.execute(query, (self.run,)))

    def spend(self) -> Spend:
        """Totals, and whether what was billed for every call is what its completions hold."""
        calls = failed = unpriced = 0
        usd = compute = Decimal(0)
        for call in self.calls():
            calls += 1
            failed += call.error is not None
            unpriced += call.usd is None and call.outcome == "answered"
            usd += call.usd or 0
            compute += call.compute_usd or 0
        with self._lock:
            wrong = self._db.execute(UNBALANCED, (self.run,)).fetchone()[0]
        return Spend(calls, failed, usd, unpriced, wrong == 0, compute)

    def query(self, sql: str, values: Sequence = ()) -> Iterator[tuple]:
        """Rows of a question to the tables, for those who look at a store."""
        self.flush()
        return self._db.execute(sql, values)

    def close(self) -> None:
        """Commit, end all leases and close the file."""
        self._keeper.stop()
        self.flush()
        if self._leases.enrolled:
            with self._writing():
                self._leases.leave()
        self._sync()
        if self._wal is not None:
            os.close(self._wal)
        self._db.close()

    def _write(self, entries: Sequence[_Entry]) -> None:
        (last,) = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM calls").fetchone()
        numbered = list(enumerate(entries, start=last + 1))
        calls = [(number, self.run or "", *row_of(entry.call)) for number, entry in numbered]
        said = [(s.key, number, s.sample, to_json(s.completion)) for number, entry in numbered for s in entry.said]
        self._db.executemany(f"INSERT INTO calls VALUES (?{',?' * (len(COLUMNS) + 1)})", calls)
        self._db.executemany("INSERT INTO completions VALUES (NULL, ?, ?, ?, ?)", said)
        self._leases.give_back([key for entry in entries for key in entry.settled])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _beat(self) -> None:
        if self._leases.enrolled:
            with self._writing():
                self._leases.beat()

    def _sync(self) -> None:
        # The write-ahead log is all that holds the newest commits; syncing it needs no lock of the database.
        if self._wal is None:
            log = self.path.with_name(self.path.name + "-wal")
            self._wal = os.open(log, os.O_RDONLY) if log.exists() else None
        if self._wal is not None:
            os.fsync(self._wal)


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Our own locks keep threads apart; other processes are waited for.
        db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        _write_ahead(db)
        db.execute("PRAGMA synchronous=NORMAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        used = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] > 0
        if used and version not in (0, VERSION) or used and version == 0 and _foreign(db):
            raise UserError(
                f"{path} is no store of this version of cope_train; name another file in `store`, or move it away"
            )
        db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}{_APPEND_ONLY}PRAGMA user_version={VERSION};COMMIT;")
        return db
    except (sqlite3.DatabaseError, OSError) as error:
        raise UserError(f"{path} cannot be opened as a store: {error}") from error


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to a write-ahead log; where two open a new file at once, SQLite refuses one of them without waiting."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _foreign(db: sqlite3.Connection) -> bool:
    """True when tables are there that no process of this version can be making at this moment."""
    return "run" not in {row[1] for row in db.execute("PRAGMA table_info(calls)")}
