"""Bodies that are sent, and replies that are read: no server needed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cope_train.errors import UserError
from cope_train.models.api_wire import Malformed, Wire, WrongModel, visible
from cope_train.recipe.model_specs import ApiModel
from cope_train.records import Message, Request, Sampling
from tests.models.server import completion

HOT = Sampling(temperature=0.8, max_tokens=50)


def wire(**fields) -> Wire:
    return Wire("large", ApiModel(backend="api", **{"model": "m"} | fields))


def request(samples: int = 1, adapter: str | None = None, sampling: Sampling = HOT) -> Request:
    return Request("p", "goal", (Message("user", "q"),), sampling, tuple(range(samples)), adapter=adapter)


def read(reply: object, samples: int = 1, **fields):
    return wire(**fields).read(reply, request(samples), samples, 1.0)


def test_a_model_that_wants_other_words_gets_them_and_is_another_identity() -> None:
    plain = wire()
    other = wire(max_tokens_field="max_completion_tokens", leave_out=["temperature", "top_p", "seed"])
    body = other.call(request(), 0)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "q"}], "max_completion_tokens": 50, "n": 1}
    assert len({str(each.identity(request())) for each in (plain, other, wire(leave_out=["seed"]))}) == 3


def test_extra_body_is_any_json_and_template_settings_go_along() -> None:
    extra = {"guided": {"choices": ["a", None, [1.5]]}}
    body = wire(extra_body=extra, chat_template_kwargs={"enable_thinking": False}).call(request(), 0)
    assert body["guided"] == extra["guided"]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra_body": {"n": 2}}, "extra_body.n"),
        ({"extra_body": {"stream": True}}, "extra_body.stream"),
        ({"headers": {"X-Api-Key": "abc123"}}, "headers.X-Api-Key"),
        ({"headers": {"Authorization": "Bearer abc123"}}, "environment variable"),
        ({"base_url": "https://me:abc123@host/v1"}, "base_url"),
    ],
)
def test_what_would_be_said_twice_or_aloud_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as error:
        wire(**fields)
    assert "abc123" not in str(error.value.errors()[0]["ctx"]["error"])


def test_an_adapter_is_a_served_name() -> None:
    served = wire(adapters={"planner": "m-planner"})
    assert served.call(request(adapter="planner"), 0)["model"] == "m-planner"
    assert served.call(request(), 0)["model"] == "m"
    assert served.identity(request(adapter="planner"))["model"] == "m-planner"
    assert served.read(completion(["a"], model="m-planner"), request(adapter="planner"), 1, 1.0)
    with pytest.raises(WrongModel):
        served.read(completion(["a"]), request(adapter="planner"), 1, 1.0)
    with pytest.raises(UserError, match="models.large.adapters.executor") as error:
        served.identity(request(adapter="executor"))
    assert error.value.exit_code == 2


def test_cached_tokens_are_of_the_prompt_and_reasoning_is_shared_out() -> None:
    said = read(completion(["a", "b", "c"], usage=(100, 50), cached=64, reasoning=40), samples=3)
    assert {each.cached_tokens for each in said.completions} == {64}
    assert sum(each.completion_tokens for each in said.completions) == 50
    assert sum(each.reasoning_tokens for each in said.completions) == 40
    assert all(each.reasoning_tokens <= each.completion_tokens for each in said.completions)
    assert (said.billed, said.longest) == (150, 17)


@pytest.mark.parametrize("total", range(12))
@pytest.mark.parametrize("choices", range(1, 6))
def test_no_choice_thinks_more_than_it_has_tokens(total: int, choices: int) -> None:
    for reasoning in range(total + 1):
        reply = completion(["x"] * choices, usage=(1, total), reasoning=reasoning)
        said = read(reply, choices).completions
        assert sum(each.reasoning_tokens for each in said) == reasoning
        assert all(each.reasoning_tokens <= each.completion_tokens for each in said)


def test_reasoning_that_a_server_counts_apart_is_part_of_the_completion() -> None:
    reply = completion(["a"], usage=(10, 5), reasoning=30)
    reply["usage"]["total_tokens"] = 45
    (said,) = read(reply).completions
    assert (said.completion_tokens, said.reasoning_tokens) == (35, 30)


def test_details_that_a_server_does_not_give_are_unknown() -> None:
    for details in (None, {}, {"cached_tokens": None}):
        reply = completion(["a"], usage=(10, 5))
        reply["usage"] |= {"prompt_tokens_details": details, "completion_tokens_details": details}
        (said,) = read(reply).completions
        assert (said.cached_tokens, said.reasoning_tokens, said.completion_tokens) == (None, None, 5)


def test_hidden_reasoning_is_never_the_text() -> None:
    for field in ("reasoning_content", "reasoning"):
        reply = completion([""], finish="length")
        reply["choices"][0]["message"] |= {"content": None, field: "The answer is 4."}
        assert read(reply).completions[0].text == ""


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>so 2+2=5? no</think>\n\nIt is 4.", "It is 4."),
        ("\n<think>\nline\nline\n</think>4", "4"),
        ("<think>cut off: it is 5", ""),
        ("opened in the prompt</think>4", "4"),
        ("It is 4.", "It is 4."),
        ("Write <think> tags.", "Write <think> tags."),
        ("", ""),
    ],
)
def test_thinking_left_in_the_text_is_not_the_answer(content: str, text: str) -> None:
    assert visible(content) == text
    assert read(completion([content])).completions[0].text == text


def test_more_choices_than_wanted_are_dropped_but_billed() -> None:
    said = read(completion(["a", "b", "c"], usage=(10, 30)), samples=2)
    assert [each.text for each in said.completions] == ["a", "b"]
    assert sum(each.completion_tokens for each in said.completions) == 30


@pytest.mark.parametrize(
    ("asked", "echoed"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("gpt-4", "gpt-4-0613"),
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("/models/small", "/models/small@main"),
        ("Qwen/Qwen3-4B", "qwen3-4b"),
        ("mistral-small-latest", "mistral-small-2409"),
        ("llama3", "llama3:8b"),
        ("m", ""),
    ],
)
def test_a_model_may_be_called_by_its_other_names(asked: str, echoed: str) -> None:
    assert read(completion(["a"], model=echoed), model=asked)


@pytest.mark.parametrize(
    ("asked", "echoed"), [("gpt-4o", "gpt-4o-mini"), ("gpt-4o-mini", "gpt-4o"), ("qwen2.5-1.5b", "qwen2.5-7b")]
)
def test_another_model_is_no_answer_unless_the_recipe_says_so(asked: str, echoed: str) -> None:
    with pytest.raises(WrongModel, match=f"answered as {echoed}, not as {asked}"):
        read(completion(["a"], model=echoed), model=asked)
    assert read(completion(["a"], model=echoed), model=asked, answers_as=echoed)


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": None},
        {},
        [],
        "text",
        None,
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": ["a"]}}]},
        {"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{}]}}]},
        {"choices": [{"message": {"content": "a"}}], "usage": "free"},
    ],
)
def test_what_is_no_chat_completion_is_malformed(reply: object) -> None:
    with pytest.raises(Malformed):
        read(reply)
