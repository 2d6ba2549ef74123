"""The cache that writes in place against transformers' own, through growth, selection of rows and cropping."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from cope_train.models import cache
from tests.conftest import make_model


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen2_moe"])
def test_it_holds_what_transformers_own_cache_holds(tmp_path: Path, family: str, monkeypatch) -> None:
    monkeypatch.setattr(cache, "_SPARE", 3)  # so that it has to grow on the way
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, family)).eval()
    mine, theirs = cache.new_cache(model.config), DynamicCache(config=model.config)
    assert all(isinstance(layer, cache.RoomyLayer) for layer in mine.layers)
    torch.manual_seed(0)

    def step(rows: int, tokens: int) -> None:
        ids = torch.randint(0, 200, (rows, tokens))
        with torch.inference_mode():
            logits = [model(input_ids=ids, past_key_values=past).logits for past in (mine, theirs)]
        assert torch.equal(*logits)
        for one, two in zip(mine.layers, theirs.layers, strict=True):
            assert torch.equal(one.keys, two.keys)
            assert torch.equal(one.values, two.values)

    step(2, 5)
    for past in (mine, theirs):
        past.batch_select_indices(torch.tensor([0, 0, 1]))
    for _ in range(8):
        step(3, 1)
    for past in (mine, theirs):
        past.crop(-2)
    step(3, 4)
    assert mine.get_seq_length() == 5 + 8 - 2 + 4


def test_layers_of_another_kind_stay_as_they_are() -> None:
    from transformers import MistralConfig

    config = MistralConfig(num_hidden_layers=2, sliding_window=8)
    assert [type(a) for a in cache.new_cache(config).layers] == [type(b) for b in DynamicCache(config=config).layers]
