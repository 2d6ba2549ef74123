"""The tokenizer: exact round trips, digits alone, a template with a mask for the assistant; and what is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cope_train import prompts
from cope_train.lab import mixture, tokenizer, world

PLANS = ({}, {"goal"}, {"guideline"}, {"goal", "guideline"})


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


def chat(problem, role="solution", plans=()):
    values = {kind: problem.meta[kind] for kind in plans}
    messages = prompts.load("word_problems").render(role, question=problem.question, **values)
    return [{"role": message.role, "content": message.content} for message in messages]


def test_every_text_of_the_world_comes_back_exactly(loaded) -> None:
    for problem in world.problems("test", 300):
        for text in (problem.question, *problem.meta.values()):
            ids = loaded(text)["input_ids"]
            assert loaded.unk_token_id not in ids
            assert loaded.decode(ids) == text


def test_digits_are_tokens_of_their_own(loaded) -> None:
    assert loaded.tokenize("\\boxed{47}") == ["\\boxed", "{", "4", "7", "}"]
    assert loaded.tokenize("have 58, add") == ["have", " 5", "8", ",", " add"]


def test_prompts_are_in_vocabulary_and_short(loaded) -> None:
    for problem in world.problems("test", 50):
        for plans in PLANS:
            text = loaded.apply_chat_template(chat(problem, plans=plans), tokenize=False, add_generation_prompt=True)
            ids = loaded(text)["input_ids"]
            assert loaded.unk_token_id not in ids
            assert len(ids) < 180
            assert text.endswith("<|assistant|>")


def test_the_template_masks_the_assistant(loaded) -> None:
    problem = world.problems("test", 1)[0]
    messages = [*chat(problem), {"role": "assistant", "content": problem.meta["solution"]}]
    out = loaded.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mark in zip(out["input_ids"], out["assistant_masks"], strict=True) if mark]
    assert loaded.decode(marked) == problem.meta["solution"] + "<|end|>"


def test_foreign_text_does_not_fail(loaded) -> None:
    ids = loaded("Löse bitte: 3 % of π\t☃")["input_ids"]
    assert loaded.unk_token_id in ids


def test_pretraining_sees_exactly_what_inference_asks(loaded) -> None:
    """An unguided example of the mixture starts with the very tokens that the task's prompt renders to."""
    for example in mixture.Author(mixture.LARGE, loaded).examples("test", 40):
        prompt = loaded.decode(example.ids[: example.start])
        assert loaded.unk_token_id not in example.ids
        assert prompt.endswith("<|assistant|>")
        if prompt.startswith("<|system|>State"):
            question = prompt.split("<|user|>")[1].split("<|end|>")[0]
            message = prompts.load("word_problems").render("goal", question=question)
            messages = [{"role": m.role, "content": m.content} for m in message]
            assert prompt == loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_examples_depend_on_their_seed_only(loaded) -> None:
    author = mixture.Author(mixture.SMALL, loaded)
    assert author.examples("a", 10) == author.examples("a", 10)
    assert author.examples("a", 10) != author.examples("b", 10)
