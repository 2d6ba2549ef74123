"""Typing the command line in process, and one small finished run that several tests look at."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TINY = "recipes/word_problems/tiny.yaml"
# The whole line at its smallest: a dozen problems, a few steps.
SMALL = ("--limit", "12", "train.planner.epochs=1", "train.executor.epochs=1", "evaluate.resamples=200")


@dataclass
class Typed:
    """What a command left: exit code, and both outputs."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder that has the shipped recipes beside it, as a checkout does."""
    if not (folder / "recipes").exists():
        (folder / "recipes").symlink_to(ROOT / "recipes")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def type_command(*words: str) -> Typed:
    """Run `cope-train WORDS` in this process."""
    from cope_train import cli

    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["cope-train", *map(str, words)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
    return Typed(code, out.getvalue(), err.getvalue())


@pytest.fixture
def cope(tmp_path: Path) -> Iterator[Callable[..., Typed]]:
    """`cope("check", recipe)` types a command in the test's own folder."""
    with inside(tmp_path):
        yield type_command


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny recipe was run, small, into runs/quickstart."""
    folder = tmp_path_factory.mktemp("finished")
    with inside(folder):
        typed = type_command("run", TINY, "--out", "runs/quickstart", *SMALL)
    assert typed.code == 0, typed.out + typed.err
    return folder
