"""The script that makes the models: twice the same bytes, folders that load, a card that says what they are."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from cope_train import lab

ROOT = Path(__file__).parents[2]


def made(folder: Path) -> dict[str, str]:
    """Checksums of the weights that a 2 % run of the script makes in a folder."""
    options = ["--scale=0.02", "--problems=0", "--out", folder / "models", "--work", folder / "work"]
    command = [sys.executable, ROOT / "scripts" / "make_lab_pair.py", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "large: step 100 of 100, loss" in done.stdout
    weights = {name: folder / "models" / name / "model.safetensors" for name in lab.NAMES}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in weights.items()}


def test_two_short_runs_make_the_same_bytes_and_a_card_that_names_them(tmp_path: Path) -> None:
    first, second = made(tmp_path / "one"), made(tmp_path / "two")
    assert first == second
    assert len(set(first.values())) == len(lab.NAMES)
    models = tmp_path / "one" / "models"
    card = (models / "README.md").read_text()
    assert all(digest in card for digest in first.values())
    assert "make_lab_pair.py --scale 0.02`" in card
    assert "<!-- figures -->" in card
    for name in lab.NAMES:
        assert AutoModelForCausalLM.from_pretrained(models / name).generation_config.do_sample
        assert AutoTokenizer.from_pretrained(models / name).chat_template
