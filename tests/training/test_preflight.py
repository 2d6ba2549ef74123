"""Preflight on a real tokenizer: what is learned, what is refused, what is dropped and said."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from cope_train.errors import UserError
from cope_train.models.loading import render
from cope_train.records import Message
from cope_train.training.preflight import preflight, tokenise
from cope_train.training.rows import Row
from tests.conftest import CHATML, make_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path):
    return make_tokenizer(tmp_path)


def row(completion: str = "a plan", question: str = "why?") -> Row:
    return Row((Message("system", "goal"), Message("user", question)), completion)


def rendered(tokenizer):
    return lambda messages, opened: render(tokenizer, messages, {}, opened)


def check(tokenizer, rows, max_length=200, max_dropped=0.1):
    return preflight(rows, tokenizer, rendered(tokenizer), {tokenizer.eos_token_id}, max_length, max_dropped)


def test_the_prompt_is_what_inference_sends_and_only_the_completion_is_learned(tokenizer) -> None:
    tokens = tokenise(row(), tokenizer, rendered(tokenizer))
    prompt = render(tokenizer, row().prompt, {})
    assert tokenizer.decode(tokens.ids[: tokens.prompt]) == prompt
    assert tokenizer.decode(tokens.ids[tokens.prompt :]) == "a plan<|im_end|>"  # and not the newline behind it


def test_a_row_is_shown_with_its_mask(tokenizer) -> None:
    passed = check(tokenizer, [row()])
    assert "⟦a plan<|im_end|>⟧" in passed.told[1]
    assert 0 < passed.trained_share < 1


def test_a_template_that_never_ends_the_turn_is_refused(tokenizer) -> None:
    tokenizer.chat_template = CHATML.replace("{{ m.content }}<|im_end|>", "{{ m.content }}")
    with pytest.raises(UserError, match="never to stop"):
        check(tokenizer, [row()])


def test_a_template_that_renders_finished_chats_differently_is_refused(tokenizer) -> None:
    tokenizer.chat_template = CHATML + "{% if not add_generation_prompt %}{% endif %}"
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "assistant\n{% endif %}", "assistant\n<think>{% endif %}", 1
    )
    with pytest.raises(UserError, match="prompts it never sees"):
        check(tokenizer, [row()])


def test_long_rows_are_dropped_not_cut_and_too_many_are_refused(tokenizer) -> None:
    rows = [row(f"plan {i}") for i in range(19)] + [row("x" * 300)]
    passed = check(tokenizer, rows)
    assert (len(passed.rows), passed.dropped) == (19, 1)
    assert "1 rows of more than 200 tokens are dropped" in passed.told[0]
    with pytest.raises(UserError, match="raise max_length or max_dropped"):
        check(tokenizer, rows, max_dropped=0.01)


def test_no_rows_is_an_error_that_names_the_reason(tokenizer) -> None:
    with pytest.raises(UserError, match="no plan was kept"):
        check(tokenizer, [])


def test_options_of_the_template_reach_training(tokenizer) -> None:
    tokenizer.chat_template = "{{ mark }}" + CHATML
    tokens = tokenise(row(), tokenizer, partial(_with_mark, tokenizer))
    assert tokenizer.decode(tokens.ids).startswith("thinking off")


def _with_mark(tokenizer, messages, opened):
    return render(tokenizer, messages, {"mark": "thinking off"}, opened)
