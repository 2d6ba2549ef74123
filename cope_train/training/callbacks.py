"""What training tells while it runs: metrics.jsonl and progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import TrainerCallback

# Wall-time figures differ between equal runs; totals since the last start differ after a resume.
_LEFT_OUT = ("runtime", "per_second", "total_flos", "num_tokens", "train_loss")


class MetricsFile(TrainerCallback):
    """One JSON line for each logged step. After a resume, lines past the checkpoint are written anew."""

    def __init__(self, path: Path, progress: Callable[[str, int, int], None] | None = None, label: str = "") -> None:
        self._path = path
        self._progress = progress or (lambda name, done, total: None)
        self._label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut the file back to the step that training starts from."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= state.global_step]
        self._path.write_text("".join(line + "\n" for line in kept) if state.global_step else "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append what was logged."""
        if not state.is_world_process_zero:
            return
        values = {key: value for key, value in (logs or {}).items() if not any(part in key for part in _LEFT_OUT)}
        if "loss" not in values:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **values}) + "\n")

    def mean_loss(self) -> float:
        """Mean training loss over all steps, those before a resume included."""
        return mean(json.loads(line)["loss"] for line in self._path.read_text().splitlines())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show progress."""
        self._progress(self._label, state.global_step, state.max_steps)
