"""Model folders that are broken: refused by name, with what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cope_train.errors import UserError
from cope_train.models.identity import weights_fingerprint
from cope_train.models.loading import load_model
from cope_train.recipe.model_specs import LocalModel


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


@pytest.mark.parametrize("size", [4, 1000, -100])
def test_weights_that_were_cut_off(copy: Path, size: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(UserError, match="copy: no model can be loaded from it"):
        load_model(copy, LocalModel(backend="local", path=str(copy), device="cpu"))


@pytest.mark.parametrize(("content", "message"), [('{"model_', "no valid JSON"), ("[]", "must hold an object")])
def test_a_broken_configuration(copy: Path, content: str, message: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(UserError, match=f"config.json: {message}"):
        weights_fingerprint(copy)
