"""What a recipe asks its models at most, before any is asked: every stage for every problem, at full length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass
class Bound:
    """Calls and tokens of one model that a run does not exceed unless calls fail and are made again."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def usd(self, price: Price) -> Decimal:
        """What that costs."""
        return (self.prompt_tokens * price.input + self.completion_tokens * price.output) / Decimal(1_000_000)


def bounds(study: Study, splits: Mapping[str, Sequence[Problem]]) -> tuple[dict[str, Bound], list[str]]:
    """A bound for each model, and the splits left out of it because nothing tells their size.

    `splits` holds the problems that are here; of others the recipe's limit is taken, at a guessed length.
    """
    recipe = study.recipe
    lines = entries(study, _trainable(study))
    asks = {
        "train": _collecting(recipe) if recipe.plans else set(),
        "calibration": _calibrating(recipe, lines, study.trained),
        "test": {ask for line in lines for ask in _asked(line, study.trained)},
    }
    found, unknown = {name: Bound() for name in recipe.models}, []
    for split in SPLITS:
        source: Data | None = getattr(recipe.data, split)
        if source and split not in splits and source.limit is None:
            unknown.append(split)
        elif source:
            problems = splits.get(split) or [Problem("unseen", "x" * _UNSEEN)] * source.limit
            _add(study, asks[split], problems, len(recipe.seeds) if split != "train" else 1, found)
    return found, unknown


@dataclass(frozen=True)
class _Ask:
    """What a problem is asked, by all that decides its requests: equal ones are sent once, whoever wants them.

    `plans` says which asks the plans in the prompt come from; there are `copies` prompts, one for each such plan.
    """

    model: str
    role: Role
    temperature: float
    samples: int = 1
    adapter: str | None = None
    plans: tuple[tuple[PlanKind, _Ask], ...] = ()
    copies: int = 1


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


def _asked(line: Entry, adapted: str) -> list[_Ask]:
    """Everything that the engine asks when no gate accepts; thresholds only ever make it less."""
    asks: list[_Ask] = []
    plans: dict[PlanKind, _Ask] = {}
    for stage in line.strategy.stages:
        each = stage.plan is not None and stage.plan.each
        if plan := stage.plan:
            adapter = "planner" if plan.planner == adapted and line.adapters in ("planner", "both") else None
            plans[plan.kind] = _Ask(plan.planner, plan.kind, plan.temperature, stage.samples if each else 1, adapter)
            asks.append(plans[plan.kind])
        solved = _Ask(
            stage.executor,
            "solution",
            stage.temperature,
            samples=1 if each else stage.samples,
            adapter="executor" if stage.executor == adapted and line.adapters in ("executor", "both") else None,
            plans=tuple((kind, plans[kind]) for kind in stage.given if kind in plans),
            copies=stage.samples if each else 1,
        )
        asks.append(solved)
        if each:
            plans[stage.plan.kind] = solved  # the vote decides which plan is handed over
    return asks


def _add(study: Study, asks: set[_Ask], problems: Sequence[Problem], seeds: int, found: dict[str, Bound]) -> None:
    sampling = study.recipe.sampling
    sizes: dict[tuple, int] = {}
    for ask in asks:
        shape = (ask.role, *(kind for kind, _ in ask.plans))
        if shape not in sizes:
            sizes[shape] = _prompt_bytes(study, shape, problems) + _FRAME * len(problems)
        times = ask.copies * (1 if ask.temperature == 0 and not ask.plans else seeds)
        bound = found[ask.model]
        bound.calls += times * len(problems)
        bound.prompt_tokens += times * sizes[shape]
        longest = sampling.get(ask.role, RoleSampling()).max_tokens
        bound.completion_tokens += times * len(problems) * ask.samples * longest


def _prompt_bytes(study: Study, shape: tuple[Role, ...], problems: Sequence[Problem]) -> int:
    """Bytes of a role's prompts, plans of some kinds at their full length in them; a token is a byte at least."""
    role, *kinds = shape
    longest = {kind: study.recipe.sampling.get(kind, RoleSampling()).max_tokens for kind in kinds}
    plans = {kind: "x" * (_RETOLD * tokens) for kind, tokens in longest.items()}
    chats = (study.prompts.render(role, question=problem.question, **plans) for problem in problems)
    return sum(len(message.content.encode()) for chat in chats for message in chat)
