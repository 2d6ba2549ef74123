"""Adapters on a real (random) base: active for their role only, refused on another base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from cope_train.errors import UserError
from cope_train.models.adapters import MANIFEST, check_base, read_manifest
from cope_train.models.identity import weights_fingerprint
from cope_train.models.local import LocalBackend
from cope_train.recipe.model_specs import LocalModel
from cope_train.records import Message, Request, Sampling
from tests.conftest import make_model

REQUEST = Request("p", "goal", (Message("user", "plan it"),), Sampling(temperature=0.9, max_tokens=10), (0, 1))


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    manifest = {"base": {"name": base.name, "fingerprint": weights_fingerprint(base)}}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def backend(base: Path, adapters: dict | None = None) -> LocalBackend:
    return LocalBackend("small", LocalModel(backend="local", path=str(base), device="cpu"), adapters)


def said(model: LocalBackend, adapter: str | None) -> list[str]:
    request = replace(REQUEST, adapter=adapter)
    return [outcome.text for outcome in next(model.generate([request]))[1]]


def test_each_adapter_speaks_for_its_role_and_the_base_stays_the_base(tiny_model: Path, tmp_path: Path) -> None:
    planner, executor = (make_adapter(tiny_model, tmp_path / str(seed), seed) for seed in (1, 2))
    both = backend(tiny_model, {"planner": planner, "executor": executor})
    alone = backend(tiny_model, {"executor": executor})
    plain = said(backend(tiny_model), None)
    texts = {name: said(both, name) for name in ("planner", "executor")}
    assert said(both, None) == plain  # after adapters were active
    assert texts["planner"] != plain != texts["executor"] != texts["planner"]
    assert said(alone, "executor") == texts["executor"]
    # A run with adapters at hand finds what a run without them has stored.
    assert both.identity(REQUEST) == backend(tiny_model).identity(REQUEST)
    assert both.identity(replace(REQUEST, adapter="planner")) != both.identity(REQUEST)


def test_a_wave_may_mix_adapters(tiny_model: Path, tmp_path: Path) -> None:
    model = backend(tiny_model, {"planner": make_adapter(tiny_model, tmp_path / "a", 1)})
    mixed = [replace(REQUEST, adapter=name, problem_id=f"p{i}") for i, name in enumerate(["planner", None, "planner"])]
    together = dict(model.generate(mixed))
    assert all(together[i] == _without_time(next(model.generate([r]))[1], together[i]) for i, r in enumerate(mixed))


def _without_time(outcomes: tuple, like: tuple) -> tuple:
    timed = zip(outcomes, like, strict=True)
    return tuple(
        replace(outcome, seconds=other.seconds, logprob=pytest.approx(other.logprob, abs=1e-4))
        for outcome, other in timed
    )


def test_an_adapter_of_another_base_of_the_same_shape_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=1)
    adapter = make_adapter(other, tmp_path / "adapter", 1)
    with pytest.raises(UserError, match="was trained on other .* not on"):
        backend(tiny_model, {"planner": adapter})


def test_a_folder_that_is_no_adapter_of_ours_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter_config.json"):
        backend(tiny_model, {"planner": tmp_path})
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="base it was trained on is unknown"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"base": {"name"', "cope_train.json: no valid JSON"),
        ("{}", "cope_train.json: no base.fingerprint"),
        ('{"base": {"name": "x"}}', "cope_train.json: no base.fingerprint"),
        ('{"base": "x"}', "cope_train.json: no base.fingerprint"),
        ("[]", "cope_train.json: no base.fingerprint"),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path: Path, manifest: str, message: str) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(UserError, match=message):
        check_base(tmp_path, "0", "base")


def test_a_manifest_need_not_name_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / MANIFEST).write_text('{"base": {"fingerprint": "1"}}')
    with pytest.raises(UserError, match="was trained on another base"):
        check_base(tmp_path, "0", "base")


def test_a_copy_of_a_base_elsewhere_is_the_same_base(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny_model, tmp_path / "copy")
    assert weights_fingerprint(tmp_path / "copy") == weights_fingerprint(tiny_model)


def test_the_order_in_which_peft_names_its_modules_does_not_matter(tiny_model: Path, tmp_path: Path) -> None:
    folder = make_adapter(tiny_model, tmp_path, 1)
    before, path = weights_fingerprint(folder), folder / "adapter_config.json"
    config = json.loads(path.read_text())
    assert len(config["target_modules"]) > 1
    path.write_text(json.dumps(config | {"target_modules": config["target_modules"][::-1]}))
    assert weights_fingerprint(folder) == before  # PEFT holds a set, which every process orders anew
    path.write_text(json.dumps(config | {"target_modules": config["target_modules"][1:]}))
    assert weights_fingerprint(folder) != before
