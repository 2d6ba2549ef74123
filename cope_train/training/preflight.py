"""Rows into tokens, and the checks that a run must pass before it costs anything (`docs/architecture.md`).

Prompts are rendered and encoded exactly as at inference, and the completion is encoded after them, so that the
model learns from the prompt it will be asked with, and only the completion is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from cope_train.errors import UserError
from cope_train.records import Message
from cope_train.training.rows import Row

Render = Callable[[Sequence[Message], bool], str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row as token ids, and how many of the first are prompt."""

    ids: list[int]
    prompt: int


@dataclass(frozen=True, slots=True)
class Preflight:
    """What passed: rows to train on, rows dropped as too long, the share of tokens that are learned.

    `told` says the same in words, with one row and its mask.
    """

    rows: tuple[Tokens, ...]
    dropped: int
    trained_share: float
    told: tuple[str, ...] = ()


def tokenise(row: Row, tokenizer: Any, render: Render) -> Tokens:
    """Encode a row. `render(messages, open)` gives the chat as text, with the assistant's turn opened or not.

    Raises UserError when the template does not continue the prompt it renders for generation.
    """
    prompt = render(row.prompt, True)
    whole = render((*row.prompt, Message("assistant", row.completion)), False)
    if not whole.startswith(prompt):
        raise UserError(
            "the chat template renders a finished chat differently from the prompt it opens for generation, so the "
            f"model would learn from prompts it never sees; the prompt ends in {prompt[-60:]!r}"
        )
    # White space after the end of the turn is never generated, so it is not learned.
    completion = whole[len(prompt) :].rstrip()
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return Tokens(head + tail, len(head))


def preflight(
    rows: Sequence[Row],
    tokenizer: Any,
    render: Render,
    ends: Collection[int],
    max_length: int,
    max_dropped: float,
) -> Preflight:
    """Encode and check all rows. Raises UserError saying what is wrong.

    `ends` are the tokens that end a turn; rows over `max_length` tokens are dropped (never cut), and more than
    the share `max_dropped` of them is an error.
    """
    if not rows:
        raise UserError("no training row: no plan was kept; see the plan set's card, and plans.keep.min_success")
    encoded = [tokenise(row, tokenizer, render) for row in rows]
    kept = [row for row in encoded if len(row.ids) <= max_length]
    dropped = len(encoded) - len(kept)
    if not kept or dropped / len(encoded) > max_dropped:
        raise UserError(
            f"{dropped} of {len(encoded)} rows have more than max_length = {max_length} tokens (the longest has "
            f"{max(len(row.ids) for row in encoded)}); raise max_length or max_dropped"
        )
    for row in kept:
        if row.ids[-1] not in ends:
            raise UserError(
                f"the last trained token is {tokenizer.decode(row.ids[-1:])!r}, which does not end the model's turn: "
                "it would learn never to stop; the chat template must close the assistant's turn with one of "
                f"{[tokenizer.decode([end]) for end in sorted(ends)]}"
            )
    share = sum(len(row.ids) - row.prompt for row in kept) / sum(len(row.ids) for row in kept)
    if not 0 < share < 1:
        raise UserError(f"{share:.0%} of the tokens would be trained: prompts or completions are empty")
    told = (
        f"{len(kept)} rows, the longest of {max(len(row.ids) for row in kept)} tokens; {share:.1%} of the tokens are "
        f"learned; {dropped} rows of more than {max_length} tokens are dropped",
        f"a row as trained, the learned part in brackets: {_shown(kept[0], tokenizer)}",
    )
    return Preflight(tuple(kept), dropped, share, told)


def _shown(row: Tokens, tokenizer: Any) -> str:
    return f"{tokenizer.decode(row.ids[: row.prompt])}⟦{tokenizer.decode(row.ids[row.prompt :])}⟧"
