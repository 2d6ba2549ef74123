"""SFT on a real (random) model: it learns, it resumes to the same weights, and it never learns the prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cope_train.errors import UserError
from cope_train.models.loading import load_model, load_tokenizer, render
from cope_train.recipe.model_specs import LocalModel
from cope_train.recipe.schema import Lora, Tracking, Train
from cope_train.records import Message
from cope_train.training import sft
from cope_train.training.preflight import preflight
from cope_train.training.rows import Row
from cope_train.training.to_trl import lora_config, sft_config

ROWS = [Row((Message("user", f"say {word}"),), word * 2) for word in ("ab", "cd", "ef", "gh")]


def job(model_folder: Path, work: Path, **fields) -> sft.Job:
    tokenizer = load_tokenizer(model_folder)
    section = Train(learning_rate=5e-3, epochs=8, batch_size=2, save_steps=4, lora=Lora(rank=4, alpha=8), **fields)
    data = preflight(
        ROWS, tokenizer, lambda m, opened: render(tokenizer, m, {}, opened), {tokenizer.eos_token_id}, 99, 0
    )
    return sft.Job(
        role="planner",
        section=section,
        data=data,
        model=load_model(model_folder, LocalModel(backend="local", path=str(model_folder), device="cpu")),
        tokenizer=tokenizer,
        checkpoints=work / "checkpoints",
        metrics=work / "metrics.jsonl",
        tracking=Tracking(),
        run_id="test",
    )


class Killed(Exception):
    pass


def test_interrupted_and_resumed_equals_uninterrupted(tiny_model: Path, tmp_path: Path) -> None:
    figures = sft.train(job(tiny_model, tmp_path / "whole"), tmp_path / "whole" / "adapter")
    assert (figures["steps"], figures["rows"]) == (16, 4)

    def kill_at(label: str, done: int, total: int) -> None:
        if done == 10:
            raise Killed

    broken = job(tiny_model, tmp_path / "broken")
    with pytest.raises(Killed):
        sft.train(sft.Job(**vars(broken) | {"progress": kill_at}), tmp_path / "broken" / "adapter")
    half = tmp_path / "broken" / "checkpoints" / "checkpoint-9"  # as a kill in the middle of saving leaves it
    half.mkdir()
    resumed = job(tiny_model, tmp_path / "broken")
    assert sft.checkpoint(resumed).name == "checkpoint-8"
    assert not half.exists()
    again = sft.train(resumed, tmp_path / "broken" / "adapter")

    one, two = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("whole", "broken"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").open()] for run in ("whole", "broken")]
    assert steps[0] == steps[1]
    assert [line["step"] for line in steps[0]] == list(range(1, 17))
    assert steps[0][-1]["loss"] < steps[0][0]["loss"]
    assert again == figures


def test_all_linear_layers_get_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = get_peft_model(job(tiny_model, tmp_path).model, lora_config(Train()))
    adapted = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_resume_never_starts_afresh_and_a_wrong_path_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "checkpoint-4"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    assert sft.checkpoint(job(tiny_model, tmp_path)) == folder
    assert sft.checkpoint(job(tiny_model, tmp_path, resume=str(folder))) == folder
    assert sft.checkpoint(job(tiny_model, tmp_path, resume="never")) is None
    assert not folder.exists()
    with pytest.raises(UserError, match="is no checkpoint"):
        sft.checkpoint(job(tiny_model, tmp_path, resume="nowhere"))


def test_the_mapping_to_trl_says_what_the_recipe_says(tmp_path: Path) -> None:
    config = sft_config(Train(learning_rate=3e-4, warmup=0.1, batch_size=3, seed=7), tmp_path)
    assert (config.learning_rate, config.warmup_steps, config.per_device_train_batch_size) == (3e-4, 0.1, 3)
    assert (config.seed, config.data_seed, config.max_length, config.packing) == (7, 7, None, False)
    assert config.completion_only_loss
    assert config.report_to == []


def test_each_role_tracks_into_a_run_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    for role in ("planner", "executor"):
        fresh = vars(job(tiny_model, tmp_path))
        fresh |= {"role": role, "run_id": f"test-{role}", "tracking": Tracking(wandb="offline")}
        fresh |= {"checkpoints": tmp_path / "checkpoints" / role, "metrics": tmp_path / f"{role}.jsonl"}
        fresh["section"] = fresh["section"].model_copy(update={"epochs": 1})
        sft.train(sft.Job(**fresh), tmp_path / "adapters" / role)
    runs = {path.name.rpartition("-test-")[2] for path in tmp_path.rglob("offline-run-*") if path.is_dir()}
    assert runs == {"planner", "executor"}
