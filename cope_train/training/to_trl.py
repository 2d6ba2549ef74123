"""The only file that knows TRL's names: a recipe's training section as a trainer's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig
from trl import SFTConfig

from cope_train.recipe.schema import Train


def lora_config(section: Train) -> LoraConfig:
    """PEFT's configuration of the adapter."""
    lora = section.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def sft_config(section: Train, checkpoints: Path, cpu: bool = True, wandb: bool = False, **changes: Any) -> SFTConfig:
    """TRL's configuration for SFT. Rows come tokenised and are never cut, packed or padded to a fixed length."""
    return SFTConfig(
        output_dir=str(checkpoints),
        learning_rate=section.learning_rate,
        num_train_epochs=section.epochs,
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=section.gradient_accumulation,
        warmup_steps=section.warmup,  # below 1 it is a share of all steps
        lr_scheduler_type=section.scheduler,
        weight_decay=section.weight_decay,
        bf16=section.bf16,
        activation_checkpointing=section.gradient_checkpointing,
        gradient_checkpointing=False,  # TRL's own default for the older name of the line above is True
        save_strategy="steps",
        save_steps=section.save_steps,
        save_total_limit=section.keep_checkpoints,
        seed=section.seed,
        data_seed=section.seed,
        max_length=None,
        packing=False,
        completion_only_loss=True,
        logging_steps=1,  # an average over more steps would differ after a resume
        disable_tqdm=True,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        report_to=["wandb"] if wandb else [],
        **changes,
    )
