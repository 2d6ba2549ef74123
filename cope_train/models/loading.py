"""Loading tokenizers and base models, and rendering a chat the way a model reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from cope_train.errors import UserError
from cope_train.recipe.model_specs import LocalModel
from cope_train.records import Message


def render(tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Any], opened: bool = True) -> str:
    """The chat as the model reads it, with the assistant's turn opened (to generate) or not (to learn from).

    A template that refuses a system role gets it folded into the user's turn.
    """
    chat = [{"role": message.role, "content": message.content} for message in messages]

    def apply(turns: list[dict[str, str]]) -> str:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opened, **options)

    try:
        return apply(chat)
    except TemplateError:
        if chat[0]["role"] != "system" or len(chat) < 2:
            raise
        folded = {"role": "user", "content": chat[0]["content"] + "\n\n" + chat[1]["content"]}
        return apply([folded, *chat[2:]])


def load_tokenizer(folder: Path) -> Any:
    """Tokenizer of a model folder, left-padding. Raises UserError when it has none, or no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no tokenizer can be loaded from it: {error}") from error
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: the tokenizer has no chat template; use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, spec: LocalModel) -> Any:
    """The base model of a recipe, on its device. Raises UserError when its files are missing or broken."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    options = {"device_map": spec.device_map} if spec.device_map else {}
    if spec.attention:
        options["attn_implementation"] = spec.attention
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=spec.dtype, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: no model can be loaded from it: {error}") from error
    if spec.device_map:
        return model
    return model.to(spec.device or ("cuda" if torch.cuda.is_available() else "cpu"))
