"""Small real models of several architectures, made here with random weights, and fakes by protocol."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

# Nothing in this suite may touch a network or phone home.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled", "DO_NOT_TRACK": "1"}

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many requests go through the faulty proxy to the real server: few in the suite, 1,000 by hand."""
    parser.addoption("--requests", type=int, default=10, help="requests through the faulty proxy to a real server")


def make_tokenizer(folder: Path, template: str = CHATML):
    """A byte-level tokenizer with ChatML's special tokens and no merges: 256 bytes and three specials."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return fast


def make_model(folder: Path, family: str = "llama", template: str = CHATML, seed: int = 0) -> Path:
    """A random model folder of a family: llama, qwen2 (grouped-query attention), qwen2_moe, mistral (with windows)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer(folder, template)
    extra = {
        "llama": {},
        "qwen2": {"num_key_value_heads": 2},
        "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
        "qwen2_moe": {
            "num_key_value_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    }[family]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **_SMALL, **extra)
    config.eos_token_id, config.pad_token_id, config.bos_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id, None
    model = AutoModelForCausalLM.from_config(config)
    # Random weights say everything with near equal probability; sharper ones make greedy text stable.
    model.lm_head.weight.data.mul_(8)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama folder."""
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def write_jsonl(tmp_path: Path):
    """Write rows to a jsonl file in the test's folder."""

    def write(name: str, rows: list) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
