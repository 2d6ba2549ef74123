"""Pretraining of one lab model: its shape, and a training loop with fixed steps and seeds.

Nothing depends on the clock: the same machine and library versions give the same weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from cope_train.lab.mixture import MINDS, Author, Example
from cope_train.lab.tokenizer import MAX_LENGTH, build

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Plan:
    """Shape and schedule of one model."""

    layers: int
    steps: int
    width: int = 96
    heads: int = 4
    rows: int = 32  # examples a step
    rate: float = 3e-3
    warmup: int = 100
    drill_until: float = 0.3  # arithmetic comes first: for this share of the steps...
    drill: float = 5.0  # ...the drill has this many times its share
    prompt_weight: float = 0.1  # of prompt tokens in the loss; stories are random, but their grammar is worth a little


PLANS = {
    "small": Plan(layers=3, steps=7500),
    "middle": Plan(layers=4, steps=4500),
    "large": Plan(layers=6, steps=5000),
}
SAVE_EVERY = 500  # steps between checkpoints
POOL = 16  # batches drawn together and sorted by length, so that rows are padded little


def batches(author: Author, plan: Plan, steps: int, seed: int, start: int = 0) -> Iterator[list[Example]]:
    """Batches `start` to `steps` of examples of like length, in shuffled order."""
    for first in range(start - start % POOL, steps, POOL):
        drill = plan.drill if first < plan.drill_until * steps else 1.0
        pool = author.examples(f"{seed}/{first}", POOL * plan.rows, drill)
        pool.sort(key=lambda example: len(example.ids))
        cut = [pool[at : at + plan.rows] for at in range(0, len(pool), plan.rows)]
        random.Random(f"{seed}/{first}/order").shuffle(cut)
        yield from cut[max(0, start - first) : steps - first]


def new_model(plan: Plan, seed: int) -> LlamaForCausalLM:
    """An untrained model of the planned shape."""
    tokenizer = build()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=plan.width * 8 // 3,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, batch: list[Example], prompt_weight: float) -> torch.Tensor:
    """Mean loss over the answers' tokens, plus that of the prompts' tokens at their weight."""
    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for row, example in enumerate(batch):
        end = len(example.ids)
        ids[row, :end] = torch.tensor(example.ids)
        weights[row, :end] = prompt_weight
        weights[row, example.start : end] = 1.0
    ids, weights = ids.to(model.device), weights.to(model.device)
    weights = weights[:, 1:].flatten()
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # padded on the right: a causal mask is enough
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights).sum() / (weights >= 1.0).sum()


def pretrain(
    name: str,
    scale: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> LlamaForCausalLM:
    """Train one of the models from nothing; `scale` shortens it to a share of its steps.

    With a `checkpoint` file the training goes on from what is in it, to the same weights as if never interrupted.
    """
    plan = PLANS[name]
    steps = max(1, round(plan.steps * scale))
    model = new_model(plan, seed).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, plan, steps))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = _resume(parts, checkpoint)
    rows = batches(Author(MINDS[name], build()), plan, steps, seed, start)
    for step, batch in enumerate(rows, start=start + 1):
        loss = loss_of(model, batch, plan.prompt_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if checkpoint and step % SAVE_EVERY == 0:
            _keep(parts, step, checkpoint)
        if progress:
            progress(name, step, steps, loss.item())
    return model.cpu().eval()


def _rate(plan: Plan, steps: int, step: int) -> float:
    """Learning rate as a share of the plan's: linear warm-up, then a cosine down to 2 %."""
    warmup = max(1, min(plan.warmup, steps // 5))
    rest = max(0.0, (step - warmup) / max(1, steps - warmup))
    return min((step + 1) / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * rest)))


def _keep(parts: Mapping[str, Any], step: int, path: Path) -> None:
    fresh = path.with_suffix(".new")
    torch.save({"step": step} | {name: part.state_dict() for name, part in parts.items()}, fresh)
    fresh.replace(path)  # a kill leaves the old checkpoint or the new one


def _resume(parts: Mapping[str, Any], path: Path | None) -> int:
    """Load a checkpoint, if there is one; the steps already done."""
    if path is None or not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return saved["step"]


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write a model as an ordinary Hugging Face folder, in bfloat16, with tokenizer and generation settings."""
    tokenizer = build()
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        do_sample=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
