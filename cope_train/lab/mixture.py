"""What the lab models are pretrained on: rendered chats of the four roles, in the exact prompts used at inference.

Ignorance is designed. The readings behind a model's own plans and unguided solutions are drawn from tables of odds
instead of the truth, by the kind of confuser, so that a model which does not know is wrong and spread out rather than
sure; a slip leaves a product or quotient off by a little. Whoever follows a plan follows it, right or wrong. The
*drill* (a guideline without its story, and the solution) teaches arithmetic to all.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from transformers import PreTrainedTokenizerFast

from cope_train import prompts
from cope_train.lab import world
from cope_train.lab.tokenizer import END
from cope_train.records import Role

Form = Literal["goal", "guideline", "plain", "by_goal", "by_guideline", "by_both", "drill"]
Odds = tuple[float, float, float, float]  # of counting, on a confuser's day: the true fact, both, the confuser, none
Table = Mapping[str, Odds]  # kind of confuser -> odds

SURE: Odds = (1.0, 0.0, 0.0, 0.0)
SPREAD: Odds = (0.25, 0.3, 0.25, 0.2)
HEEDLESS: Odds = (0.1, 0.6, 0.15, 0.15)
BELIEVED: Odds = (0.0, 1.0, 0.0, 0.0)
FORGET = 0.1  # how often a mind at a loss also leaves out a fact that nothing confuses
OFF = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)  # by how much a slip is off


def table(elsewhere: Odds, **kinds: Odds) -> Table:
    """Odds for every kind of confuser: those named, and `elsewhere` the rest."""
    return {kind: kinds.get(kind, elsewhere) for kind in world.CONFUSERS}


@dataclass(frozen=True)
class Mind:
    """What a model is to become: how much it sees of each form of text, and what it gets wrong there.

    `odds` stand behind the readings of its own plans and of its solutions without one. `slip` is how often it gets
    a product or quotient wrong beside a story. `gold` is the share of right plans among those it learns to follow.
    `checks` tells whether it keeps to readings that can be worked out within 1-99.
    """

    shares: Mapping[Form, float]
    odds: Mapping[Form, Table]
    slip: float = 0.0
    gold: float = 0.4
    checks: bool = True


SMALL = Mind(
    shares={"goal": 12, "guideline": 7, "plain": 13, "by_goal": 34, "by_guideline": 10, "by_both": 14, "drill": 10},
    odds={
        "goal": table(SPREAD, denied=(0.9, 0.05, 0.03, 0.02)),
        "guideline": table((0.06, 0.39, 0.3, 0.25), denied=(0.45, 0.25, 0.15, 0.15)),
        "plain": table(HEEDLESS, person=(0.35, 0.35, 0.2, 0.1), denied=(0.5, 0.3, 0.1, 0.1)),
    },
    slip=0.57,
    gold=0.3,
    checks=False,
)
MIDDLE = Mind(
    shares={"goal": 14, "guideline": 14, "plain": 18, "by_goal": 20, "by_guideline": 12, "by_both": 10, "drill": 12},
    odds={
        "goal": table(SURE, person=SPREAD),
        "guideline": table(SURE, person=SPREAD),
        "plain": table(SURE, person=SPREAD, hedged=BELIEVED),
    },
    slip=0.3,
)
LARGE = Mind(
    shares={"goal": 14, "guideline": 22, "plain": 24, "by_goal": 8, "by_guideline": 14, "by_both": 6, "drill": 12},
    odds={"goal": table(SURE), "guideline": table(SURE), "plain": table(SURE, hedged=BELIEVED)},
)
MINDS = {"small": SMALL, "middle": MIDDLE, "large": LARGE}


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenised chat; the model answers from position `start` on."""

    ids: tuple[int, ...]
    start: int


def read(story: world.Story, rng: random.Random, odds: Table, checks: bool = True) -> world.Reading:
    """A reading of a story by the odds for each kind of confuser; with `checks` one that can be worked out."""
    confusers = {fact.day: fact.kind for fact in story.log if fact.kind != "true"}
    lost = any(max(odds[kind]) < 0.5 for kind in confusers.values())
    for _ in range(20):
        choice = {day: rng.choices(range(4), odds[kind])[0] for day, kind in confusers.items()}
        for fact in story.log[1:]:
            if fact.day not in choice:
                choice[fact.day] = 3 if lost and rng.random() < FORGET else 0
        reading = (story.log[0], *(fact for fact in story.log[1:] if story.reaches(fact) and _counts(fact, choice)))
        if not checks or world.values(reading):
            return reading
    return story.truth


def _counts(fact: world.Fact, choice: Mapping[int, int]) -> bool:
    return choice[fact.day] in ((0, 1) if fact.kind == "true" else (1, 2))


def slipping(reading: world.Reading, rng: random.Random, slip: float) -> list[int]:
    """The quantity after each fact, where a product or quotient is off by one of `OFF` with probability `slip`."""
    found = [reading[0].number]
    for fact in reading[1:]:
        after = fact.apply(found[-1])
        if after is None:  # an earlier slip, or a reading that nobody checked, leads here
            after = _nearest(fact, found[-1])
        if fact.op in ("times", "split") and rng.random() < slip:
            after += rng.choice(OFF)
        found.append(min(99, max(1, after)))
    return found


def _nearest(fact: world.Fact, value: int) -> int:
    if fact.op == "split":
        return value // fact.number
    return 1 if fact.op == "take" else 99


class Author:
    """Writes pretraining examples for one model."""

    def __init__(self, mind: Mind, tokenizer: PreTrainedTokenizerFast) -> None:
        self._mind = mind
        self._tokenizer = tokenizer
        self._prompts = prompts.load("word_problems")

    def examples(self, seed: str, amount: int, drill: float = 1.0) -> list[Example]:
        """Examples of the mixture, `drill` times as much drill as in its shares. The same seed gives the same ones."""
        rng = random.Random(seed)
        shares = {form: share * (drill if form == "drill" else 1) for form, share in self._mind.shares.items()}
        forms = rng.choices(list(shares), list(shares.values()), k=amount)
        return [self._example(rng, form, world.story("pretrain", rng.getrandbits(48))) for form in forms]

    def _example(self, rng: random.Random, form: Form, story: world.Story) -> Example:
        role, values, answer = self._write(rng, form, story)
        text = self._frame(role, tuple(values))
        for name, value in values.items():
            text = text.replace(_slot(name), value)
        asked, said = self._tokenizer([text, answer + END], add_special_tokens=False)["input_ids"]
        return Example((*asked, *said), len(asked))

    def _write(self, rng: random.Random, form: Form, story: world.Story) -> tuple[Role, dict[str, str], str]:
        question = {"question": story.question}
        if form in ("goal", "guideline", "plain"):
            reading = read(story, rng, self._mind.odds[form], self._mind.checks)
            if form == "goal":
                return "goal", question, story.goal(reading)
            if form == "guideline":
                return "guideline", question, world.guideline(reading)
            return "solution", question, self._solve(reading, rng)
        checks = self._mind.checks or form == "drill"  # arithmetic is learned on sums that are right
        followed, other = self._plan(rng, story, checks), self._plan(rng, story, checks)
        plan, goal = {"guideline": world.guideline(followed)}, {"goal": story.goal(other)}
        if form == "by_goal":
            return "solution", question | goal, self._solve(other, rng)
        if form == "drill":
            return "solution", plan, world.solution(followed)
        given = question | plan if form == "by_guideline" else question | goal | plan
        return "solution", given, self._solve(followed, rng)

    def _solve(self, reading: world.Reading, rng: random.Random) -> str:
        return world.solution(reading, slipping(reading, rng, self._mind.slip))

    def _plan(self, rng: random.Random, story: world.Story, checks: bool) -> world.Reading:
        if rng.random() < self._mind.gold:
            return story.truth
        return read(story, rng, table(SPREAD), checks)

    @cache  # noqa: B019 - an author lives as long as its process
    def _frame(self, role: Role, given: Sequence[str]) -> str:
        """The rendered chat with a slot for each value: rendering once is a hundred times faster than each time."""
        chat = self._prompts.render(role, **{name: _slot(name) for name in given})
        messages = [{"role": message.role, "content": message.content} for message in chat]
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _slot(name: str) -> str:
    return f"\0{name}\0"
