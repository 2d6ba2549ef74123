"""Every command and snippet of the README runs; those that need a GPU or a key are checked instead."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, inside, type_command

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.strip()]
ELSEWHERE = {"bash scripts/quickstart.sh", "bash scripts/test.sh"}  # the quickstart is run by hand, the other runs this
NEEDS_MORE = "recipes/gsm8k/qwen2.5-1.5b.yaml"


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's own run in it, which the commands go on from in their order."""
    copy = tmp_path_factory.mktemp("readme")
    shutil.copytree(finished / "runs", copy / "runs")
    return copy


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE])
def test_a_command_of_the_readme(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    program, verb, *words = shlex.split(command)
    assert program == "cope-train"
    if NEEDS_MORE in words:
        verb = "check"
    elif verb in ("run", "report") or "budget.usd=0.50" in words:
        # The finished run is of twelve problems and one epoch; with its own arguments nothing is done anew.
        words += ["--limit", "12", "train.planner.epochs=1", "train.executor.epochs=1", "evaluate.resamples=200"]
    elif verb == "train":
        words += ["train.planner.epochs=1"]
    if "--limit" in words and "20" in words:
        words[words.index("20")] = "8"
    with inside(folder):
        typed = type_command(verb, *words)
    assert typed.code == (5 if NEEDS_MORE in words else 0), typed.out + typed.err


@pytest.mark.parametrize("snippet", [block for kind, block in BLOCKS if kind == "python"])
def test_a_snippet_of_the_readme(snippet: str, folder: Path) -> None:
    with inside(folder):
        exec(compile(snippet, "README.md", "exec"), {})  # our own text, not a model's


def test_links_and_pictures_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / link).exists(), link


def test_verbs_and_options_of_the_help_are_there() -> None:
    typed = type_command("--help")
    assert typed.code == 0
    for verb in (
        "check",
        "collect",
        "train",
        "evaluate",
        "report",
        "export",
        "run",
        "show",
        "store",
        "schema",
        "recipes",
    ):
        assert verb in typed.out
        assert f"`{verb}`" in README or f"cope-train {verb}" in README
    options = type_command("run", "--help").out
    for option in ("--out", "--limit", "--seed", "--only", "--quiet", "--verbose"):
        assert option in options
