"""The bundled weights: they load, stop, sample by default, and the large model is better."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cope_train import lab, prompts
from cope_train.errors import UserError
from cope_train.lab import pretrain, world
from cope_train.records import Verdict
from cope_train.tasks.word_problems import WordProblems


def solved(name: str, problems, plans=()) -> int:
    """How many problems a bundled model solves greedily, given gold plans."""
    task = WordProblems(prompts.load("word_problems"))
    tokenizer = AutoTokenizer.from_pretrained(lab.path(name))
    model = AutoModelForCausalLM.from_pretrained(lab.path(name), dtype=torch.float32)
    asked = [task.ask(problem, "solution", {kind: problem.meta[kind] for kind in plans}) for problem in problems]
    chats = [[{"role": m.role, "content": m.content} for m in messages] for messages in asked]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    out = model.generate(**batch, max_new_tokens=160, do_sample=False)[:, batch["input_ids"].shape[1] :]
    assert all(tokenizer.eos_token_id in row for row in out)
    said = tokenizer.batch_decode(out, skip_special_tokens=True)
    return sum(task.judge(p, task.extract(t)) is Verdict.right for p, t in zip(problems, said, strict=True))


def test_the_large_model_solves_more_and_a_guideline_helps_the_small_one() -> None:
    problems = world.problems("test", 60, offset=500_000)
    small = solved("small", problems)
    assert solved("large", problems) >= small + 12
    assert solved("small", problems, ["guideline"]) >= small + 12


@pytest.mark.parametrize("name", lab.NAMES)
def test_folders_are_ordinary_and_sample_by_default(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(lab.path(name))
    tokenizer = AutoTokenizer.from_pretrained(lab.path(name))
    assert model.generation_config.do_sample
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings >= 512


def test_an_unknown_name_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match="'medium'.*small, middle, large"):
        lab.path("medium")


def test_pretraining_is_the_same_twice() -> None:
    weights = []
    for _ in range(2):
        losses: list[float] = []
        model = pretrain.pretrain("small", scale=0.0005, progress=lambda *step: losses.append(step[-1]))  # noqa: B023
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert losses
    assert torch.equal(*weights)


def test_pretraining_that_was_cut_off_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 5)
    scale = 20 / pretrain.PLANS["small"].steps

    def cut_off(name: str, step: int, steps: int, loss: float) -> None:
        if step == 18:  # past the checkpoint at 15, in the second pool of batches
            raise KeyboardInterrupt

    whole = pretrain.pretrain("small", scale)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain("small", scale, progress=cut_off, checkpoint=tmp_path / "checkpoint")
    seen: list[int] = []
    resumed = pretrain.pretrain(
        "small", scale, progress=lambda *step: seen.append(step[1]), checkpoint=tmp_path / "checkpoint"
    )
    assert seen == [16, 17, 18, 19, 20]
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
