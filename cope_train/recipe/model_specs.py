"""What a recipe can say of a model: where it is, how it is asked, and what it costs."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator

from cope_train.recipe.section import Money, Section
from cope_train.recipe.wrong import Wrong

# What every call says anyway: said again in extra_body it would quietly differ from what the store's key holds.
_SENT = set(
    "model messages n stream temperature top_p top_k repetition_penalty max_tokens max_completion_tokens stop seed "
    "logprobs chat_template_kwargs".split()
)
_SECRET = re.compile(r"authorization|key|token|secret|password|cookie", re.IGNORECASE)


class Price(Section):
    """USD per million tokens. Prompt tokens that the server had in its cache may be cheaper."""

    input: Money
    output: Money
    cached_input: Money | None = Field(None, description="as `input` when left out")


class LocalModel(Section):
    """A model folder or hub id that runs here on transformers and PEFT."""

    backend: Literal["local"]
    path: str = Field(description="lab/small, lab/middle, lab/large, a folder, or a hub id")
    revision: str | None = None
    dtype: Literal["auto", "float64", "float32", "bfloat16", "float16"] = "float32"
    device: str | None = Field(None, description="cpu, cuda, cuda:1, ...; the best one when left out")
    device_map: str | None = Field(None, description="accelerate's device map, such as auto, for models over devices")
    attention: str | None = Field(None, description="attention implementation: eager, sdpa, flash_attention_2, ...")
    batch_tokens: int = Field(65536, ge=1, description="prompt and new tokens per batch; halved on out-of-memory")
    adapters: dict[Literal["planner", "executor"], str] = Field({}, description="ready adapters to evaluate")
    chat_template_kwargs: dict[str, bool | int | float | str] = {}
    price: Price | None = Field(None, description="what it would cost if bought; free when left out")
    usd_per_hour: Money | None = Field(None, description="what this machine costs; a book of its own")


class ApiModel(Section):
    """A model behind an OpenAI-compatible server. Keys and secret headers come from environment variables only."""

    backend: Literal["api"]
    model: str
    base_url: str | None = Field(None, description="up to /v1; OpenAI's own when left out")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    adapters: dict[Literal["planner", "executor"], str] = Field({}, description="role -> name its adapter is served by")
    answers_as: str | None = Field(None, description="model name in the server's replies, where it is not `model`'s")
    concurrency: int = Field(64, ge=1, description="most calls at a time; how many the server bears is found out")
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    timeout: float = Field(120.0, gt=0, description="seconds for one call")
    retries: int = Field(5, ge=0, description="further attempts for a call that failed in passing")
    logprobs: bool = False
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    leave_out: list[Literal["temperature", "top_p", "seed", "stop"]] = Field(
        [], description="what the model refuses to be told"
    )
    headers: dict[str, str] = Field({}, description="sent with every call; $NAME is an environment variable")
    chat_template_kwargs: dict[str, bool | int | float | str] = {}
    extra_body: dict[str, JsonValue] = Field({}, description="anything else the server understands")
    price: Price | None = Field(None, description="unknown when left out, and so is every cost")

    @model_validator(mode="after")
    def _nothing_said_twice_or_aloud(self) -> Self:
        wrong = [
            (f"extra_body.{key}", "is sent already; say it in `sampling`, or in the model's own field")
            for key in self.extra_body
            if key in _SENT
        ]
        wrong += [
            (f"headers.{name}", "looks like a secret: put it in an environment variable and write $NAME here")
            for name, value in self.headers.items()
            if _SECRET.search(name) and "$" not in value
        ]
        if self.base_url and "@" in urlsplit(self.base_url).netloc:
            wrong.append(("base_url", "holds a password: put the key in an environment variable, named by api_key_env"))
        if wrong:
            raise Wrong(wrong)
        return self


class RecordedModel(Section):
    """Completions from a jsonl file: for tests, and to grade what others recorded."""

    backend: Literal["recorded"]
    path: str
    fields: dict[Literal["question", "completion", "id", "role", "index"], str] = Field(
        {}, description="our field -> column, dots go deeper"
    )
    price: Price | None = None


Model = Annotated[LocalModel | ApiModel | RecordedModel, Field(discriminator="backend")]
