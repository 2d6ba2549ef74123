"""train as a step: which checkpoints it forgets."""

from __future__ import annotations

from pathlib import Path

from cope_train.steps.train import _forget_other_checkpoints


def test_checkpoints_of_other_inputs_are_forgotten_but_never_the_one_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "planner"
    _forget_other_checkpoints(folder, {"rate": 1}, "auto")
    checkpoint = folder / "checkpoint-4"
    checkpoint.mkdir()
    _forget_other_checkpoints(folder, {"rate": 1}, "auto")
    assert checkpoint.exists()
    _forget_other_checkpoints(folder, {"rate": 2}, str(checkpoint))
    assert checkpoint.exists()
    _forget_other_checkpoints(folder, {"rate": 2}, "auto")
    assert not checkpoint.exists()
