"""What the two models are pretrained on: rendered chats of the four roles, in the exact prompts used at inference.

The small model's ignorance is designed. It knows that "almost" facts do not count; about other persons and other items
it knows nothing, and the readings behind its own plans and unguided solutions are drawn from a table instead of the
truth. So it is wrong there, and spread out rather than sure. Whoever follows a plan follows it faithfully, right or
wrong. The *drill* (a guideline without its story, and the solution) teaches arithmetic to both.
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

SURE: Odds = (1.0, 0.0, 0.0, 0.0)
SPREAD: Odds = (0.25, 0.3, 0.25, 0.2)


@dataclass(frozen=True)
class Mind:
    """What a model is to become. `known` odds hold for the kinds of confuser in `knows`, `unknown` ones elsewhere.

    `gold` is the share of right plans among those that it learns to follow; `doubt` how often, given a goal and a
    guideline that contradict each other, it follows the goal.
    """

    shares: Mapping[Form, float]
    knows: frozenset[str]
    known: Mapping[Form, Odds]
    unknown: Mapping[Form, Odds]
    gold: float = 0.4
    doubt: float = 0.0

    def odds(self, form: Form, kind: str) -> Odds:
        """The odds behind one form of text, for one kind of confuser."""
        return (self.known if kind in self.knows else self.unknown)[form]


SMALL = Mind(
    shares={"goal": 12, "guideline": 7, "plain": 11, "by_goal": 34, "by_guideline": 10, "by_both": 16, "drill": 10},
    knows=frozenset({"unreal"}),
    known={"goal": (0.88, 0.06, 0.03, 0.03), "guideline": (0.65, 0.15, 0.1, 0.1), "plain": (0.65, 0.2, 0.1, 0.05)},
    unknown={"goal": SPREAD, "guideline": (0.06, 0.39, 0.3, 0.25), "plain": (0.08, 0.52, 0.25, 0.15)},
    gold=0.3,
    doubt=0.3,
)
LARGE = Mind(
    shares={"goal": 14, "guideline": 22, "plain": 24, "by_goal": 8, "by_guideline": 14, "by_both": 6, "drill": 12},
    knows=frozenset({"unreal", "person", "item"}),
    known={"goal": SURE, "guideline": SURE, "plain": SURE},
    unknown={},
)
MINDS = {"small": SMALL, "large": LARGE}


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenised chat; the model answers from position `start` on."""

    ids: tuple[int, ...]
    start: int


def read(story: world.Story, rng: random.Random, odds: Mapping[str, Odds]) -> world.Reading:
    """A reading of a story by the odds for each kind of confuser. The truth where none drawn can be worked out."""
    confusers = {fact.day: fact.kind for fact in story.log if fact.kind != "true"}
    for _ in range(20):
        choice = {day: rng.choices(range(4), odds[kind])[0] for day, kind in confusers.items()}
        reading = tuple(
            fact
            for fact in story.log
            if story.reaches(fact)
            and (fact.day not in choice or choice[fact.day] in ((0, 1) if fact.kind == "true" else (1, 2)))
        )
        if world.values(reading):
            return reading
    return story.truth


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
            reading = read(story, rng, {kind: self._mind.odds(form, kind) for kind in ("person", "item", "unreal")})
            if form == "goal":
                return "goal", question, story.goal(reading)
            if form == "guideline":
                return "guideline", question, world.guideline(reading)
            return "solution", question, world.solution(reading)
        followed, other = self._plan(rng, story), self._plan(rng, story)
        plan, goal = {"guideline": world.guideline(followed)}, {"goal": story.goal(other)}
        if form == "by_goal":
            return "solution", question | goal, world.solution(other)
        if form == "by_both" and self._mind.doubt and rng.random() < self._mind.doubt:
            return "solution", question | goal | plan, world.solution(other)
        given = {"drill": plan, "by_guideline": question | plan, "by_both": question | goal | plan}[form]
        return "solution", given, world.solution(followed)

    def _plan(self, rng: random.Random, story: world.Story) -> world.Reading:
        if rng.random() < self._mind.gold:
            return story.truth
        return read(story, rng, dict.fromkeys(("person", "item", "unreal"), SPREAD))

    @cache  # noqa: B019 - an author lives as long as its process
    def _frame(self, role: Role, given: Sequence[str]) -> str:
        """The rendered chat with a slot for each value: rendering once is a hundred times faster than each time."""
        chat = self._prompts.render(role, **{name: _slot(name) for name in given})
        messages = [{"role": message.role, "content": message.content} for message in chat]
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _slot(name: str) -> str:
    return f"\0{name}\0"
