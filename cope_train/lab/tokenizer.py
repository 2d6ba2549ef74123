"""A word-level tokenizer for the word-problem world, saved as an ordinary Hugging Face folder.

Every word is one token that carries the space before it, digits are split one by one, and decoding gives the text
back exactly. The vocabulary is closed: it is enumerated from the world and its prompts, and anything else becomes the
unknown token, which loses text but never fails.
"""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cope_train import prompts
from cope_train.lab import world

PAD, UNK, END = "<|pad|>", "<|unk|>", "<|end|>"
SPEAKERS = ("<|system|>", "<|user|>", "<|assistant|>")
PIECES = r" ?\\?[A-Za-z]+| ?[0-9]|\n| ?[^A-Za-z0-9\s]|\s"
FRAME = (
    "On the by How many does have after Find of start with So The answer is \\boxed Goal Guideline Solve the x"
).split()
MAX_LENGTH = 512

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""


def vocabulary() -> dict[str, int]:
    """Every token and its number: special tokens, then words and signs, each with and without a space before it."""
    words = {*FRAME, *world.DAYS, *world.PEOPLE, *world.BYSTANDERS, *world.ITEMS, *world.SUNDRIES}
    words |= {"had"} | {adverb for adverbs in world.ADVERBS.values() for adverb in adverbs}
    words |= {verb for verbs in world.VERBS.values() for verb in verbs} | set(world.SIGNS)
    for text in prompts.load("word_problems").texts.values():
        words |= set("".join(letter if letter.isalpha() else " " for letter in text).split())
    pieces = sorted(words) + list(string.digits) + list(string.punctuation)
    spaced = [mark + piece for piece in pieces for mark in ("", " ")]
    return {token: number for number, token in enumerate([PAD, UNK, END, *SPEAKERS, *spaced, " ", "\n"])}


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, with its chat template."""
    core = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=END,
        extra_special_tokens=list(SPEAKERS),
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save(folder: Path) -> None:
    """Write the tokenizer's files into a folder."""
    build().save_pretrained(folder)
