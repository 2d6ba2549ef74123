"""Supervised fine-tuning of one adapter, on TRL's SFTTrainer."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cope_train.errors import UserError
from cope_train.recipe.schema import Tracking, Train
from cope_train.training.preflight import Preflight

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One adapter to train: what on, how, and where its files go. `run_id` names it to trackers across resumes."""

    role: str
    section: Train
    data: Preflight
    model: Any
    tokenizer: Any
    checkpoints: Path
    metrics: Path
    tracking: Tracking
    run_id: str
    progress: Callable[[str, int, int], None] | None = None


def train(job: Job, adapter: Path) -> dict[str, float]:
    """Train and save the adapter's PEFT folder at `adapter`; returns final figures (steps, loss).

    Resumes from the last whole checkpoint as `section.resume` says.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from trl import SFTTrainer

    from cope_train.training.callbacks import MetricsFile
    from cope_train.training.to_trl import lora_config, sft_config

    set_seed(job.section.seed)  # the adapter's first weights are drawn before the trainer seeds anything
    masks = [[0] * row.prompt + [1] * (len(row.ids) - row.prompt) for row in job.data.rows]
    rows = Dataset.from_dict({"input_ids": [row.ids for row in job.data.rows], "completion_mask": masks})
    metrics = MetricsFile(job.metrics, job.progress, f"training {job.role}")
    trainer = SFTTrainer(
        model=job.model,
        args=sft_config(
            job.section,
            job.checkpoints,
            cpu=job.model.device.type == "cpu",
            wandb=job.tracking.wandb != "disabled",
            run_name=job.run_id,
        ),
        train_dataset=rows,
        processing_class=job.tokenizer,
        peft_config=lora_config(job.section),
        callbacks=[metrics],
    )
    trainer.remove_callback(PrinterCallback)
    start = checkpoint(job)
    if start:
        log.info("%s: resuming from %s", job.role, start.name)
    with _tracked(job):
        result = trainer.train(resume_from_checkpoint=str(start) if start else None)
    if trainer.accelerator.is_main_process:
        trainer.model.save_pretrained(adapter)
        job.tokenizer.save_pretrained(adapter)
    return {"steps": result.global_step, "loss": metrics.mean_loss(), "rows": len(rows)}


def checkpoint(job: Job) -> Path | None:
    """The checkpoint to go on from, or None to start afresh. Halves of checkpoints from a kill are removed."""
    resume = job.section.resume
    if resume not in ("auto", "never"):
        if not (Path(resume) / "trainer_state.json").exists():
            raise UserError(f"train.{job.role}.resume: {resume} is no checkpoint: no trainer_state.json in it")
        return Path(resume)
    found = sorted(job.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    # The trainer writes this file last.
    whole = [path for path in found if (path / "trainer_state.json").exists()]
    for path in found:
        if resume == "never" or path not in whole:
            shutil.rmtree(path)
    return whole[-1] if whole and resume == "auto" else None


@contextmanager
def _tracked(job: Job) -> Iterator[None]:
    """A tracker's run of this role's own, which the trainer finds and logs into; a resumed training goes on in it."""
    from accelerate import PartialState

    if job.tracking.wandb == "disabled" or not PartialState().is_main_process:
        yield
        return
    import wandb

    folder = job.checkpoints.parent
    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        project=job.tracking.project,
        id=job.run_id,
        name=job.run_id,
        resume="allow",
        mode=job.tracking.wandb,
        dir=folder,
        settings=wandb.Settings(silent=True),
    ):
        yield
