"""The local backend on real (random) models: keyed noise, shared prompts, statistics, odd templates, bad folders."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cope_train.errors import NotRunnableHere, UserError
from cope_train.models import decode
from cope_train.models.local import LocalBackend
from cope_train.models.plain import PlainDecoder
from cope_train.recipe.model_specs import LocalModel
from cope_train.records import Completion, Message, Request, Sampling
from tests.conftest import NO_SYSTEM, make_model

SAMPLED = Sampling(temperature=0.9, max_tokens=12)


def backend(folder: Path, **fields) -> LocalBackend:
    return LocalBackend("small", LocalModel(backend="local", path=str(folder), device="cpu", **fields))


def requests(count: int, samples: int, sampling: Sampling = SAMPLED) -> list[Request]:
    texts = ["word " * (1 + 7 * i % 11) + str(i) for i in range(count)]
    return [
        Request(f"p{i}", "solution", (Message("system", "s"), Message("user", text)), sampling, tuple(range(samples)))
        for i, text in enumerate(texts)
    ]


def answers(model: LocalBackend, asked: list[Request]) -> dict[tuple[str, int], Completion]:
    found = {}
    for position, outcomes in model.generate(asked):
        request = asked[position]
        found |= {(request.problem_id, index): o for index, o in zip(request.indices, outcomes, strict=True)}
    return found


def texts(found: dict) -> dict:
    return {key: completion.text for key, completion in found.items()}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen2_moe"])
def test_samples_do_not_depend_on_batch_order_or_prompt_sharing(tmp_path: Path, family: str) -> None:
    folder = make_model(tmp_path, family)
    asked = requests(12, 4)
    whole = texts(answers(backend(folder), asked))
    narrow = texts(answers(backend(folder, batch_tokens=60), asked))
    single = [replace(request, indices=(index,)) for request in asked for index in request.indices]
    random.Random(0).shuffle(single)
    assert narrow == whole
    assert texts(answers(backend(folder), single)) == whole
    assert len(set(whole.values())) > 40  # they are samples, not one text


def test_no_flip_over_600_samples_and_thread_counts(tiny_model: Path) -> None:
    asked = requests(75, 8)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = texts(answers(backend(tiny_model, batch_tokens=800), asked))
        torch.set_num_threads(2)
        two = texts(answers(backend(tiny_model), asked[::-1]))
    finally:
        torch.set_num_threads(threads)
    assert len(one) == 600
    assert one == two


def test_seed_problem_role_and_index_give_other_samples(tiny_model: Path) -> None:
    model, first = backend(tiny_model), requests(1, 1)[0]
    changed = [replace(first, seed=1), replace(first, problem_id="q"), replace(first, role="goal")]
    found = [next(model.generate([request]))[1][0].text for request in [first, *changed]]
    found.append(next(model.generate([replace(first, indices=(1,))]))[1][0].text)
    assert len(set(found)) == 5


def test_greedy_equals_plain_generate_and_logprob_is_the_models(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    request = requests(1, 1, Sampling(max_tokens=10))[0]
    completion = next(backend(tiny_model).generate([request]))[1][0]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), AutoModelForCausalLM.from_pretrained(tiny_model)
    chat = [{"role": m.role, "content": m.content} for m in request.messages]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, do_sample=False, max_new_tokens=10)
    start = prompt["input_ids"].shape[1]
    assert completion.text == tokenizer.decode(output[0, start:], skip_special_tokens=True)
    assert completion.prompt_tokens == start
    assert completion.completion_tokens == output.shape[1] - start
    logprobs = torch.log_softmax(model(output).logits[0, start - 1 : -1].float(), -1)
    expected = logprobs.gather(1, output[0, start:, None]).sum().item()
    assert completion.logprob == pytest.approx(expected, abs=1e-3)


def test_sampling_follows_the_tempered_distribution(tiny_model: Path) -> None:
    """Chi-squared of 2,000 first tokens against the model's own probabilities at temperature 2."""
    from scipy.stats import chisquare

    model = backend(tiny_model)
    request = Request("p", "solution", (Message("user", "x"),), Sampling(2.0, max_tokens=1), tuple(range(2000)))
    drawn = [completion.logprob for completion in next(model.generate([request]))[1]]
    ids = torch.tensor([model._encode(request)])
    raw = torch.log_softmax(model._model(ids).logits[0, -1].float(), -1)
    tempered = torch.softmax(raw / 2.0, -1)
    order = tempered.argsort(descending=True)[:8]
    counts = [sum(abs(value - raw[i].item()) < 1e-5 for value in drawn) for i in order]
    expected = [2000 * tempered[i].item() for i in order]
    rest = 2000 - sum(counts), 2000 - sum(expected)
    assert chisquare([*counts, rest[0]], [*expected, rest[1]]).pvalue > 0.001


def test_repetition_penalty_ignores_padding(tiny_model: Path) -> None:
    sampling = Sampling(temperature=0.9, max_tokens=8, repetition_penalty=1.5)
    asked = requests(6, 2, sampling)
    whole = texts(answers(backend(tiny_model), asked))
    alone = {k: v for request in asked for k, v in texts(answers(backend(tiny_model), [request])).items()}
    assert whole == alone


def test_stop_strings_end_the_text(tiny_model: Path) -> None:
    request = requests(1, 1, Sampling(max_tokens=30))[0]
    plain = next(backend(tiny_model).generate([request]))[1][0]
    assert plain.finish == "length"
    stop = plain.text[3:5]
    cut = next(backend(tiny_model).generate([replace(request, sampling=Sampling(max_tokens=30, stop=(stop,)))]))[1][0]
    assert cut.finish == "stop"
    assert cut.text == plain.text[: plain.text.index(stop)]


def test_a_stopped_row_counts_the_same_alone_and_beside_a_longer_one(tiny_model: Path) -> None:
    asked = requests(6, 1, Sampling(max_tokens=30))
    plain = answers(backend(tiny_model), asked)
    stop = plain["p0", 0].text[3:5]
    asked = [replace(request, sampling=Sampling(max_tokens=30, stop=(stop,))) for request in asked]
    whole = answers(backend(tiny_model), asked)
    assert {completion.finish for completion in whole.values()} == {"stop", "length"}
    alone = {key: value for request in asked for key, value in answers(backend(tiny_model), [request]).items()}
    for key, completion in alone.items():
        assert whole[key].completion_tokens == completion.completion_tokens
        assert whole[key].logprob == pytest.approx(completion.logprob, abs=1e-3)
    assert whole["p0", 0].completion_tokens < 30


def test_system_text_is_folded_where_the_template_refuses_it(tmp_path: Path) -> None:
    model = backend(make_model(tmp_path, template=NO_SYSTEM))
    request = requests(1, 1)[0]
    assert "<|im_start|>user\ns\n\nword" in model.identity(request)["prompt"]


def test_chat_template_kwargs_change_the_identity(tmp_path: Path) -> None:
    folder = make_model(tmp_path, template="{{ 'think ' if enable_thinking }}{{ messages[-1].content }}")
    on, off = (backend(folder, chat_template_kwargs={"enable_thinking": value}) for value in (True, False))
    request = requests(1, 1)[0]
    assert on.identity(request)["prompt"] != off.identity(request)["prompt"]


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A model whose memory ends at `most` rows, whichever way it is decoded."""
    step, generate = decode._Job.step, PlainDecoder._generate

    def shared(self, inside):
        if sum(len(wave.rows) for wave in inside) > most:
            raise torch.OutOfMemoryError("too many rows")
        return step(self, inside)

    def plain(self, rows, sampling):
        if len(rows) > most:
            raise torch.OutOfMemoryError("too many rows")
        return generate(self, rows, sampling)

    monkeypatch.setattr(decode._Job, "step", shared)
    monkeypatch.setattr(PlainDecoder, "_generate", plain)


@pytest.mark.parametrize("attention", [None, "eager"])
def test_out_of_memory_halves_the_room_and_goes_on(tiny_model: Path, monkeypatch, attention: str | None) -> None:
    model, asked = backend(tiny_model, attention=attention), [*requests(6, 2), *requests(7, 7)[6:]]
    expected = texts(answers(backend(tiny_model), asked))
    short_of_memory(monkeypatch, most=2)
    assert texts(answers(model, asked)) == expected
    assert model._decoder.budget < 65536
    short_of_memory(monkeypatch, most=0)
    with pytest.raises(NotRunnableHere, match="one sample"):
        answers(model, asked)


def test_shared_attention_says_what_plain_generate_says(tmp_path: Path) -> None:
    """Two ways of decoding, written apart: texts, lengths and statistics agree."""
    for family in ("llama", "qwen2", "qwen2_moe"):
        folder = make_model(tmp_path / family, family)
        penalised = requests(9, 2, Sampling(max_tokens=9, repetition_penalty=1.4))[5:]
        under_plans = [replace(r, problem_id="same", indices=(i,)) for i, r in enumerate(requests(8, 1))]
        asked = [*requests(5, 3), *penalised, *under_plans]
        plain, shared = answers(backend(folder, attention="sdpa"), asked), answers(backend(folder), asked)
        assert isinstance(backend(folder)._decoder, decode.Decoder)
        assert len(shared) == 15 + 8 + 8
        for key, completion in shared.items():
            assert completion.text == plain[key].text
            assert completion.completion_tokens == plain[key].completion_tokens
            assert completion.logprob == pytest.approx(plain[key].logprob, abs=1e-3)


def test_a_model_with_windows_is_decoded_by_generate(tmp_path: Path) -> None:
    model = backend(make_model(tmp_path, "mistral"))
    assert isinstance(model._decoder, PlainDecoder)
    assert len(answers(model, requests(2, 2))) == 4


def test_nothing_more_is_begun_once_told_to_stop(tiny_model: Path) -> None:
    told = iter([True, False])
    model = backend(tiny_model, batch_tokens=60)
    assert len(list(model.generate(requests(12, 4), lambda: next(told)))) == 1


def test_margin_is_taken_at_the_answer(tiny_model: Path) -> None:
    request = requests(1, 1, Sampling(max_tokens=10))[0]
    model = backend(tiny_model)
    plain = next(model.generate([request]))[1][0]
    assert plain.margin is None
    marked = next(model.generate([replace(request, answer_prefix=plain.text[:2])]))[1][0]
    assert 0 <= marked.margin <= 1
    assert marked.text == plain.text


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.json"):
        backend(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        backend(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no .safetensors weights"):
        backend(tmp_path)


def test_an_adapter_that_is_not_there_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="no planner adapter"):
        backend(tiny_model).identity(replace(requests(1, 1)[0], adapter="planner"))
