"""The scripts that make the figures of docs/ run, at their smallest, and put them where they belong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            ["first_gain.py", "--problems=8", "--calibration=6", "--train=40", "--seeds=2", "--schools=quick"],
            [
                "n = 8 test problems",
                "| with its own goal, trained planner |",
                "| with the large model's goal |",
                "| cope=@planner | cope |",
                "| 1 |",
            ],
        ),
        (
            ["measure_lab_pair.py", "--problems=6"],
            [
                "n = 6 test problems",
                "| large alone | 85% to 95% |",
                "| stage3 |",
                "| middle, no plan |",
                "harder world (n = 1)",
            ],
        ),
    ],
)
def test_a_script_fills_its_page(tmp_path: Path, words: list[str], found: list[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- figures -->\nfigures of last time\n<!-- end -->\nThe end.\n")
    script, *options = words
    flag = "--pages" if script == "measure_lab_pair.py" else "--page"
    command = [sys.executable, str(ROOT / "scripts" / script), *options, "--out", str(tmp_path / "run"), flag, page]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("# Title\n<!-- figures -->\n")
    assert text.endswith("\n<!-- end -->\nThe end.\n")
    assert "figures of last time" not in text
    for words in found:
        assert words in text, text


def test_the_benchmark_of_collecting_fills_its_part_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- figures -->\nothers\n<!-- end -->\n<!-- collecting -->\nold\n<!-- end -->\nThe end.\n")
    words = ["--rows=40", "--many=80", "--connections=8", "--repeats=1", "--no-distilabel", f"--page={page}"]
    command = [sys.executable, str(ROOT / "scripts" / "bench_collect.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("<!-- figures -->\nothers\n<!-- end -->\n<!-- collecting -->\nMade by")
    assert text.endswith("\n<!-- end -->\nThe end.\n")
    for found in ("| `Collector.write`, store and ledger |", "| bare `openai` client |", "Peak memory at 80 rows:"):
        assert found in text, text
    assert "old" not in text
