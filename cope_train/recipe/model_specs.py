"""What a recipe can say of a model: where it is, how it is asked, and what it costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cope_train.recipe.section import Money, Section


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
    """A model behind an OpenAI-compatible server."""

    backend: Literal["api"]
    model: str
    base_url: str | None = Field(None, description="OpenAI's own when left out")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    concurrency: int = Field(8, ge=1)
    timeout: float = Field(120.0, gt=0, description="seconds for one call")
    retries: int = Field(5, ge=0)
    logprobs: bool = False
    chat_template_kwargs: dict[str, bool | int | float | str] = {}
    extra_body: dict[str, bool | int | float | str] = {}
    price: Price | None = Field(None, description="unknown when left out, and so is every cost")


class RecordedModel(Section):
    """Completions from a jsonl file: for tests, and to grade what others recorded."""

    backend: Literal["recorded"]
    path: str
    fields: dict[Literal["question", "completion", "id", "role", "index"], str] = Field(
        {}, description="our field -> column, dots go deeper"
    )
    price: Price | None = None


Model = Annotated[LocalModel | ApiModel | RecordedModel, Field(discriminator="backend")]
