"""The folder of one run: who writes what where, what is done, and whose turn it is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cope_train.errors import UserError
from cope_train.recipe import Recipe, dump

_PACKAGES = ("cope_train", "torch", "transformers", "peft", "trl", "accelerate", "datasets")


def hash_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it stands on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class RunDir:
    """Paths of a run, and what has been done in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store.sqlite"
        self.plans = path / "plans"
        self.export = path / "export"
        self.calibration = path / "calibration.json"
        self._state = path / "state.json"

    @classmethod
    @contextmanager
    def open(cls, path: Path, recipe: Recipe) -> Iterator[RunDir]:
        """Make the folder or go on in it; nobody else can until the block ends. Raises UserError when it is in use."""
        path.mkdir(parents=True, exist_ok=True)
        run, lock, owner = cls(path), FileLock(path / ".lock"), path / ".owner"
        try:
            lock.acquire(timeout=0)  # the system's lock: a killed process lets go of it
        except Timeout:
            who = owner.read_text() if owner.exists() else "another process"
            raise UserError(f"{path} is in use by {who}; wait for it, or name another folder with --out") from None
        try:
            owner.write_text(f"process {os.getpid()} since {_now()}")
            run.write_text(path / "recipe.yaml", dump(recipe))
            yield run
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    @classmethod
    def read(cls, path: Path) -> RunDir:
        """A run to look at. Raises UserError when there is none."""
        if not (path / "recipe.yaml").exists():
            raise UserError(f"{path} is no run folder: no recipe.yaml in it")
        return cls(path)

    @property
    def id(self) -> str:
        """What the ledger calls this run, wherever its folder is moved to."""
        path = self.path / ".id"
        if not path.exists():
            self.write_text(path, uuid.uuid4().hex[:12])
        return path.read_text()

    def adapter(self, role: str) -> Path:
        """Folder of a trained adapter."""
        return self.path / "adapters" / role

    def checkpoints(self, role: str) -> Path:
        """Folder of a training's checkpoints."""
        return self.path / "checkpoints" / role

    def metrics(self, role: str) -> Path:
        """Metrics of a training, one JSON line a step."""
        return self.path / "metrics" / f"{role}.jsonl"

    def report(self, ending: str) -> Path:
        """The report as md, html or json."""
        return self.path / f"report.{ending}"

    def traces(self, split: str, strategy: str, seed: int) -> Path:
        """Traces of one strategy and seed. A star is no good in a file's name."""
        return self.path / "traces" / split / f"{strategy.replace('*', '_fitted')}-seed{seed}.jsonl"

    def trace_files(self, split: str) -> list[Path]:
        """All trace files of a split, in order of name."""
        return sorted((self.path / "traces" / split).glob("*.jsonl"))

    def clear_traces(self, split: str) -> None:
        """Forget the traces of an earlier evaluation."""
        shutil.rmtree(self.path / "traces" / split, ignore_errors=True)

    def inputs(self, verb: str) -> dict[str, Any] | None:
        """What the verb was last done with; None when it was never done."""
        return self._done().get(verb)

    def changed(self, verb: str, inputs: Mapping[str, Any]) -> list[str] | None:
        """What differs from the inputs the verb was last done with; None when it was never done."""
        done = self.inputs(verb)
        if done is None:
            return None
        old, new = _flat(done), _flat(json.loads(json.dumps(inputs)))
        keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
        return [_difference(key, old.get(key), new.get(key)) for key in keys]

    def done(self, verb: str, inputs: Mapping[str, Any]) -> None:
        """Remember that a verb was done with these inputs."""
        self.write_json(self._state, self._done() | {verb: inputs})

    def forget(self, verb: str) -> None:
        """To be called before a verb's outputs are touched: from then on they are those of no finished verb."""
        self.write_json(self._state, {name: inputs for name, inputs in self._done().items() if name != verb})

    def write_manifest(self, verb: str, facts: Mapping[str, Any]) -> None:
        """Where a verb's outputs come from: facts of the study, versions, commit, machine, command."""
        path = self.path / "manifest.json"
        verbs = json.loads(path.read_text()) if path.exists() else {}
        machine = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}
        if hasattr(os, "sysconf"):
            machine["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
        common = {"versions": versions(), "git": _git(), "machine": machine, "command": _command()}
        self.write_json(path, verbs | {verb: {"finished": _now(), **facts, **common}})

    def write_json(self, path: Path, value: Any) -> None:
        """Write JSON, whole or not at all."""
        self.write_text(path, json.dumps(value, indent=2) + "\n")

    def write_lines(self, path: Path, lines: Sequence[str]) -> None:
        """Write lines, whole or not at all."""
        self.write_text(path, "".join(line + "\n" for line in lines))

    @staticmethod
    def write_text(path: Path, text: str) -> None:
        """Write a file so that a kill leaves the old one or the new one, never a half."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _done(self) -> dict[str, Any]:
        return json.loads(self._state.read_text()) if self._state.exists() else {}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (_flat(part, f"{prefix}.{key}" if prefix else key) for key, part in value.items())
    return {key: leaf for part in parts for key, leaf in part.items()}


def _difference(key: str, old: Any, new: Any) -> str:
    shown = [json.dumps(value) if not isinstance(value, str) else value for value in (old, new)]
    # Hashes and long values tell a reader nothing but that they differ.
    return f"{key} changed" if max(map(len, shown)) > 40 else f"{key}: {shown[0]} -> {shown[1]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _git() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from, if it is one."""
    try:
        answers = [
            subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": answers[0], "dirty": bool(answers[1])}
