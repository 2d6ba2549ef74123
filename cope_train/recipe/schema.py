"""What a recipe can say. Every section refuses unknown keys; `cope-train schema` prints this as JSON Schema."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cope_train import records
from cope_train.recipe.model_specs import LocalModel, Model
from cope_train.recipe.section import Money, Section
from cope_train.recipe.strategies import REFERENCES, STRATEGIES, parse
from cope_train.recipe.wrong import Wrong, unknown
from cope_train.records import PlanKind, Role

AdapterChoice = Literal["none", "planner", "executor", "both"]
Share = Annotated[float, Field(ge=0, le=1)]


def _known_strategy(name: str) -> str:
    if name not in REFERENCES and not parse(name):
        raise Wrong([("", unknown(name, [*STRATEGIES, *REFERENCES]))])
    return name


def _known_cascade(name: str) -> str:
    if name not in STRATEGIES:
        raise Wrong([("", unknown(name, list(STRATEGIES)))])
    return name


class Data(Section):
    """One split of problems."""

    source: str = Field(description="lab, a hub id (openai/gsm8k), or a local .jsonl, .json or .parquet file")
    name: str | None = Field(None, description="configuration (subset) of a hub data set; of the lab: standard, harder")
    split: str = "train"
    revision: str | None = None
    limit: int | None = Field(None, ge=1, description="use this many problems")
    offset: int = Field(0, ge=0, description="skip this many problems first")
    fields: dict[str, str] = Field({}, description="our field (question, answer, id, level) -> column, dots go deeper")


class Splits(Section):
    """Problems to learn from, to fit thresholds on, and to report on. They may not overlap."""

    train: Data | None = None
    calibration: Data | None = None
    test: Data


class Sampling(Section):
    """Sampling of one role. Temperatures belong to strategies and to `plans`."""

    max_tokens: int = Field(1024, ge=1)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: off")
    repetition_penalty: float = Field(1.0, gt=0)
    stop: list[str] = []

    def at(self, temperature: float) -> records.Sampling:
        """The full set of sampling parameters at a temperature."""
        return records.Sampling(temperature=temperature, **self.model_dump() | {"stop": tuple(self.stop)})


class Keep(Section):
    """Which collected plans are kept: those with which the executor succeeds."""

    executor: str = "small"
    samples: int = Field(4, ge=1)
    temperature: float = Field(0.4, gt=0)
    min_success: Share = 0.5


class Plans(Section):
    """Plans to collect on the training split."""

    planner: str = "large"
    kinds: list[PlanKind] = Field(["goal", "guideline"], min_length=1)
    samples: int = Field(2, ge=1)
    temperature: float = Field(0.8, gt=0)
    max_characters: int = Field(600, ge=1, description="a longer plan is a solution, not a plan")
    keep: Keep = Keep()


class Lora(Section):
    """The adapter's shape. All linear layers by default (QLoRA, arXiv 2305.14314, section 4)."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class Train(Section):
    """Training of one adapter."""

    method: Literal["sft"] = "sft"
    kinds: list[PlanKind] = Field(["goal", "guideline"], min_length=1, description="plan kinds whose rows are used")
    lora: Lora = Lora()
    learning_rate: float = Field(2e-4, gt=0)
    epochs: float = Field(2.0, gt=0)
    batch_size: int = Field(16, ge=1, description="rows per optimiser step and device, before accumulation")
    gradient_accumulation: int = Field(1, ge=1)
    warmup: Share = Field(0.03, description="share of all steps")
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    max_length: int = Field(2048, ge=8, description="rows with more tokens are dropped, never cut")
    max_dropped: Share = Field(0.05, description="refuse to train when more than this share of rows is too long")
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_steps: int = Field(100, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    resume: str = Field("auto", description="auto, never, or a checkpoint folder")
    seed: int = 0


class Training(Section):
    """The adapters to train, each for its role only."""

    base: str = "small"
    planner: Train | None = None
    executor: Train | None = None


class Cascade(Section):
    """The cascade that trained adapters are put into."""

    strategy: Annotated[str, AfterValidator(_known_cascade)] = "cope"
    thresholds: Literal["paper"] | dict[str, Annotated[float, Field(ge=0)]] = Field(
        "paper", description="paper, or a threshold for each gated stage: {stage1: 0.75, stage2: 0.5}"
    )
    calibrate: bool = Field(True, description="evaluate it once more with thresholds fitted on the calibration split")
    early_stop: bool = Field(True, description="ask local models for no more samples of a vote than decide it")

    @model_validator(mode="after")
    def _gates_are_there(self) -> Self:
        gated = [stage.name for stage in STRATEGIES[self.strategy].stages if stage.gate]
        named = self.thresholds if isinstance(self.thresholds, dict) else {}
        if wrong := [(f"thresholds.{name}", unknown(name, gated)) for name in named if name not in gated]:
            raise Wrong(wrong)
        return self


class Evaluate(Section):
    """What is compared on the test split."""

    strategies: list[Annotated[str, AfterValidator(_known_strategy)]] = Field(
        ["small-single", "small-majority", "large", "large-plan", "cascade-no-plan", "cope"], min_length=1
    )
    adapters: list[AdapterChoice] = Field(["none", "planner", "executor", "both"], min_length=1)
    margin: float = Field(0.02, gt=0, lt=1, description="non-inferiority margin, in accuracy")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples")
    random_escalation: Share | None = Field(
        None, description="share sent to the large model; the cascade's own if unset"
    )


class Limits(Section):
    """How much may be spent; what is left out is not limited."""

    usd: Money | None = Field(None, description="on bought tokens, by the ledger")
    calls: int | None = Field(None, ge=0, description="calls of models that cost money, failed ones too")


class Budget(Limits):
    """Limits of the whole run, and of single verbs on top. A higher budget makes nothing be done anew."""

    collect: Limits | None = None
    evaluate: Limits | None = None


class Tracking(Section):
    """Experiment tracking."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "cope_train"


class Recipe(Section):
    """A whole study: problems, models, plans, training, cascade, evaluation."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    task: Literal["word_problems", "math"]
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    data: Splits
    models: dict[str, Model]
    prompts: dict[Role, str] = Field({}, description="files that replace the task's own prompts")
    sampling: dict[Role, Sampling] = {}
    plans: Plans | None = None
    train: Training | None = None
    cascade: Cascade = Cascade()
    evaluate: Evaluate = Evaluate()
    tracking: Tracking = Tracking()
    budget: Budget = Budget()
    store: str | None = Field(None, description="file of completions and ledger, for runs to share; else the run's own")

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        """What one section takes for granted of another; all that is not so is reported at once."""
        wrong = [*self._models_are_there(), *self._strategies_fit()]
        if self.plans and not self.data.train:
            wrong.append(("data.train", "missing: plans are collected on it"))
        if self.train:
            base = self.models.get(self.train.base)
            if base and not isinstance(base, LocalModel):
                wrong.append(("train.base", f"{self.train.base} is {base.backend}; only a local model can be trained"))
            if not (self.train.planner or self.train.executor):
                wrong.append(("train", "trains nothing: give it a planner, an executor or both"))
        if len(set(self.seeds)) < len(self.seeds):
            wrong.append(("seeds", f"must differ from each other, are {self.seeds}"))
        if wrong:
            raise Wrong(wrong)
        return self

    def _models_are_there(self) -> list[tuple[str, str]]:
        used = {"train.base": self.train.base} if self.train else {}
        if self.plans:
            used |= {"plans.planner": self.plans.planner, "plans.keep.executor": self.plans.keep.executor}
        wrong = [(at, unknown(name, list(self.models))) for at, name in used.items() if name not in self.models]
        for index, name in enumerate(self.evaluate.strategies):
            lacking = sorted(parse(name)[0].models - set(self.models)) if name not in REFERENCES else []
            if lacking:
                wrong.append((f"evaluate.strategies.{index}", f"{name} needs a model called {' and '.join(lacking)}"))
        return wrong

    def _strategies_fit(self) -> list[tuple[str, str]]:
        names = self.evaluate.strategies
        if "random-escalation" not in names:
            return []
        at = f"evaluate.strategies.{names.index('random-escalation')}"
        lacking = sorted({"small-single", "large"} - set(names))
        wrong = [(at, f"random-escalation is made of small-single and large; {name} is missing") for name in lacking]
        if self.evaluate.random_escalation is None and self.cascade.strategy not in names:
            wrong.append((at, f"needs {self.cascade.strategy} for its share, or evaluate.random_escalation"))
        return wrong
