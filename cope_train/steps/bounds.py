"""What a recipe asks its models, before any is asked: at most, and if all goes well.

At most: every stage for every problem, each at full length, each byte of a prompt a token. If all goes well: the first
gate accepts everything on the test split, four bytes are a token, and completions are as long as those of the same
model and role that the store holds, or a quarter of what they may be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from cope_train.recipe import Recipe
from cope_train.recipe.model_specs import LocalModel, Price
from cope_train.recipe.schema import Data
from cope_train.recipe.schema import Sampling as RoleSampling
from cope_train.recipe.strategies import STRATEGIES
from cope_train.records import PlanKind, Problem, Role
from cope_train.steps.evaluate import Entry, entries
from cope_train.study import Study

SPLITS = ("train", "calibration", "test")
_FRAME = 100  # tokens of a chat template around the messages
_RETOLD = 3  # a planner's token may be a number of three digits, which is three tokens to some executors
_UNSEEN = 600  # bytes of a question whose data is not here
_SHARE = 4  # what completions may be is this many times what they are taken to be where none is known
_BYTES = 4  # of a token in English text, roughly
Past = Mapping[tuple[str, Role], float]


@dataclass
class Bound:
    """Calls and tokens of one model that a run does not exceed unless calls fail and are made again."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Bound) -> Bound:
        return Bound(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def usd(self, price: Price) -> Decimal:
        """What that costs."""
        return (self.prompt_tokens * price.input + self.completion_tokens * price.output) / Decimal(1_000_000)


@dataclass
class Estimate:
    """What one verb asks of one model."""

    low: Bound = field(default_factory=Bound)
    high: Bound = field(default_factory=Bound)


def bounds(
    study: Study, splits: Mapping[str, Sequence[Problem]], past: Past | None = None
) -> tuple[dict[str, dict[str, Estimate]], list[str]]:
    """Estimates by verb and model, and the splits left out of them because nothing tells their size.

    `splits` holds the problems that are here; of others the recipe's limit is taken, at a guessed length. `past` is the
    mean length in tokens of a model's completions in a role.
    """
    recipe = study.recipe
    lines = entries(study, _trainable(study))
    collecting = _collecting(recipe) if recipe.plans else set()
    calibrating = _calibrating(recipe, lines, study.trained)
    testing = [
        {ask for line in lines for ask in _asked(line, study.trained, study.patient, lucky)} for lucky in (True, False)
    ]
    asks = {"train": [collecting] * 2, "calibration": [calibrating] * 2, "test": testing}
    found = {verb: {name: Estimate() for name in recipe.models} for verb in ("collect", "evaluate")}
    unknown = []
    for split in SPLITS:
        source: Data | None = getattr(recipe.data, split)
        if source and split not in splits and source.limit is None:
            unknown.append(split)
        elif source:
            problems = splits.get(split) or [Problem("unseen", "x" * _UNSEEN)] * source.limit
            seeds = len(recipe.seeds) if split != "train" else 1
            verb = found["collect" if split == "train" else "evaluate"]
            low, high = asks[split]
            _add(study, low, problems, seeds, {name: both.low for name, both in verb.items()}, past or {})
            _add(study, high, problems, seeds, {name: both.high for name, both in verb.items()}, None)
    return found, unknown


@dataclass(frozen=True)
class _Ask:
    """What a problem is asked, by all that decides its requests: equal ones are sent once, whoever wants them.

    `plans` says which asks the plans in the prompt come from; there are `copies` prompts, one for each such plan, and
    each is sent up to `turns` times, for a part of the samples each.
    """

    model: str
    role: Role
    temperature: float
    samples: int = 1
    adapter: str | None = None
    plans: tuple[tuple[PlanKind, _Ask], ...] = ()
    copies: int = 1
    turns: int = 1


def _trainable(study: Study) -> list[str]:
    """Adapters that will be there once the recipe has run."""
    spec = study.recipe.models.get(study.trained)
    return [*study.roles, *(spec.adapters if isinstance(spec, LocalModel) else ())]


def _collecting(recipe: Recipe) -> set[_Ask]:
    section, keep = recipe.plans, recipe.plans.keep
    written = [_Ask(section.planner, kind, section.temperature, section.samples) for kind in section.kinds]
    tried = [
        _Ask(keep.executor, "solution", keep.temperature, keep.samples, plans=((ask.role, ask),), copies=ask.samples)
        for ask in written
    ]
    return {*written, *tried}


def _calibrating(recipe: Recipe, lines: list[Entry], adapted: str) -> set[_Ask]:
    """A full tree for every variant of the cascade, and the large model's answers."""
    cascades = [line for line in lines if line.strategy.name == recipe.cascade.strategy and line.strategy.thresholds]
    if not (recipe.cascade.calibrate and cascades):
        return set()
    return {ask for line in [*cascades, Entry("large", STRATEGIES["large"], "none")] for ask in _asked(line, adapted)}


def _asked(line: Entry, adapted: str, patient: Collection[str] = (), lucky: bool = False) -> list[_Ask]:
    """Everything that the engine asks when no gate accepts, or when the first one does (`lucky`).

    Of a `patient` model the samples of a gated stage are asked in turns, one each at worst.
    """
    asks: list[_Ask] = []
    plans: dict[PlanKind, _Ask] = {}
    for stage in line.strategy.stages:
        each = stage.plan is not None and stage.plan.each
        often = {name: stage.samples for name in patient} if stage.gate and not lucky else {}
        if plan := stage.plan:
            turns = often.get(plan.planner, 1) if each else 1
            adapter = "planner" if plan.planner == adapted and line.adapters in ("planner", "both") else None
            plans[plan.kind] = _Ask(
                plan.planner, plan.kind, plan.temperature, stage.samples if each else 1, adapter, turns=turns
            )
            asks.append(plans[plan.kind])
        solved = _Ask(
            stage.executor,
            "solution",
            stage.temperature,
            samples=1 if each else stage.samples,
            adapter="executor" if stage.executor == adapted and line.adapters in ("executor", "both") else None,
            plans=tuple((kind, plans[kind]) for kind in stage.given if kind in plans),
            copies=stage.samples if each else 1,
            turns=1 if each else often.get(stage.executor, 1),
        )
        asks.append(solved)
        if lucky and stage.gate:
            break
        if each:
            plans[stage.plan.kind] = solved  # the vote decides which plan is handed over
    return asks


def _add(
    study: Study,
    asks: set[_Ask],
    problems: Sequence[Problem],
    seeds: int,
    found: Mapping[str, Bound],
    past: Past | None,
) -> None:
    """Add what is asked to `found`: at most, or with `past` as it is to be expected."""
    sizes: dict[tuple, int] = {}
    for ask in asks:
        plans = tuple((kind, _plan_bytes(study, plan.model, kind, past)) for kind, plan in ask.plans)
        if (ask.role, plans) not in sizes:
            sizes[ask.role, plans] = _prompt_bytes(study, ask.role, dict(plans), problems)
        size = sizes[ask.role, plans]
        times = ask.copies * (1 if ask.temperature == 0 and not ask.plans else seeds)
        bound, sent = found[ask.model], times * ask.turns
        bound.calls += sent * len(problems)
        bound.prompt_tokens += sent * (size + _FRAME * len(problems) if past is None else size // _BYTES)
        bound.completion_tokens += times * len(problems) * ask.samples * _said(study, ask.model, ask.role, past)


def _said(study: Study, model: str, role: Role, past: Past | None) -> int:
    """Tokens of one completion."""
    longest = study.recipe.sampling.get(role, RoleSampling()).max_tokens
    if past is None:
        return longest
    return min(longest, round(past.get((model, role), max(1, longest / _SHARE))))


def _plan_bytes(study: Study, model: str, kind: PlanKind, past: Past | None) -> int:
    return _said(study, model, kind, past) * (_RETOLD if past is None else _BYTES)


def _prompt_bytes(study: Study, role: Role, plans: Mapping[Role, int], problems: Sequence[Problem]) -> int:
    """Bytes of a role's prompts, with plans of some length in them."""
    written = {kind: "x" * size for kind, size in plans.items()}
    chats = (study.prompts.render(role, question=problem.question, **written) for problem in problems)
    return sum(len(message.content.encode()) for chat in chats for message in chat)
