"""Leases: which process is about to buy which completion, so that two of them never buy the same one.

Completions are never changed or taken back; leases and owners are, and stand in tables of their own.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterable, Sequence

import psutil

SCHEMA = """
CREATE TABLE IF NOT EXISTS owners (
    token TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, born REAL NOT NULL, beat REAL NOT NULL);
CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;
"""
SILENCE = 60.0  # seconds without a heartbeat after which an owner counts as dead, wherever it runs
HEARTBEAT = 10.0
_MANY = 500


class Leases:
    """The leases that one open store holds. Every method is to be called inside a write transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._token = uuid.uuid4().hex
        self._host = socket.gethostname()
        self._pid = os.getpid()
        self._born = psutil.Process().create_time()
        self._enrolled = False

    @property
    def enrolled(self) -> bool:
        """True once something was ever leased, so that the owner has a heart to beat."""
        return self._enrolled

    def take(self, keys: Sequence[str]) -> set[str]:
        """Lease keys; those that a living other owner holds are left to it, and returned."""
        self.beat()
        others: dict[str, list[str]] = {}
        for part in _parts(keys):
            marks = ",".join("?" * len(part))
            for key, token in self._db.execute(f"SELECT key, token FROM leases WHERE key IN ({marks})", part):
                others.setdefault(token, []).append(key)
        others.pop(self._token, None)
        held = {key for token, theirs in others.items() if self._alive(token) for key in theirs}
        free = [(key, self._token) for key in keys if key not in held]
        self._db.executemany("INSERT OR REPLACE INTO leases VALUES (?, ?)", free)
        return held

    def give_back(self, keys: Iterable[str]) -> None:
        """End leases of ours; those of others stay."""
        self._db.executemany("DELETE FROM leases WHERE key = ? AND token = ?", [(key, self._token) for key in keys])

    def beat(self) -> None:
        """Say that we live."""
        values = (self._token, self._host, self._pid, self._born, time.time())
        self._db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)", values)
        self._enrolled = True

    def leave(self) -> None:
        """End all leases of ours."""
        self._db.execute("DELETE FROM leases WHERE token = ?", (self._token,))
        self._db.execute("DELETE FROM owners WHERE token = ?", (self._token,))

    def _alive(self, token: str) -> bool:
        row = self._db.execute("SELECT host, pid, born, beat FROM owners WHERE token = ?", (token,)).fetchone()
        if row is None:
            return False
        host, pid, born, beat = row
        return time.time() - beat < SILENCE and (host != self._host or _runs(pid, born))


def _runs(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        # A number is given to another process some day, and a killed child has one until it is waited for.
        return abs(process.create_time() - born) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _parts(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _MANY] for start in range(0, len(keys), _MANY))
