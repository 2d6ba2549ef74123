"""The word-problem world: a weekday log of one running quantity, told with facts that count and facts that do not.

A *confuser* is a fact that does not count (another person's, about another item, or one that did not happen). It always
falls on a day that also has a fact that counts. A *reading* is the tuple of facts that somebody takes to count; goal,
guideline and solution are functions of a reading, so a wrong reading gives a wrong but well-formed plan.

Problems are drawn one by one from a seeded generator. The hash of its question selects the one split that a problem
belongs to, so no split, however long, can share a problem with another.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import count
from typing import Literal

from cope_train.errors import UserError
from cope_train.records import Problem

Op = Literal["add", "take", "times", "split"]
Kind = Literal["true", "person", "item", "denied", "hedged"]
Reading = tuple["Fact", ...]

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PEOPLE = tuple("Ann Ben Carl Dora Emma Finn Gina Hugo Ivy Jack Kim Leo Mia Ned Olga Pam Quinn Rosa Sam Tina".split())
BYSTANDERS = tuple("Umar Vera Walt Xenia Yara Zack".split())
ITEMS = tuple("apples boxes cards coins eggs pens shells stamps".split())
SUNDRIES = tuple("bags cups hats keys maps rings".split())
VERBS: dict[Op, tuple[str, ...]] = {
    "add": tuple("bought found got won made earned received collected".split()),
    "take": tuple("lost sold broke used dropped donated returned discarded".split()),
    "times": ("doubled", "tripled", "multiplied"),
    "split": ("halved", "quartered", "divided"),
}
FIXED = {"doubled": 2, "tripled": 3, "halved": 2, "quartered": 4}  # verbs that carry their number
ADVERBS: dict[str, tuple[str, ...]] = {"denied": ("never",), "hedged": ("almost", "nearly")}
SIGNS: dict[Op, str] = {"add": "+", "take": "-", "times": "x", "split": "/"}

SPLITS = {"pretrain": range(0, 180), "train": range(180, 206), "calibration": range(206, 231), "test": range(231, 256)}
CONFUSERS: dict[Kind, float] = {"person": 0.34, "item": 0.3, "denied": 0.27, "hedged": 0.09}
MATCHING = 0.04  # share of person and item confusers whose word could also be a problem's own


@dataclass(frozen=True)
class Setting:
    """How long and how confusing stories are: weights of numbers of events (from 2 up) and of confusers (from 0 up).

    `facts` is the most beside the first, so that questions stay short.
    """

    events: tuple[float, ...]
    confusers: tuple[float, ...]
    facts: int


SETTINGS = {
    "standard": Setting(events=(0.25, 0.35, 0.27, 0.13), confusers=(0.2, 0.35, 0.28, 0.17), facts=7),
    "harder": Setting(events=(0.0, 0.0, 0.3, 0.4, 0.3), confusers=(0.0, 0.0, 0.3, 0.4, 0.3), facts=10),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence of the log. `day` indexes `DAYS`; `kind` says whether it counts, or why it does not."""

    day: int
    verb: str
    op: Op
    number: int
    actor: str
    item: str
    kind: Kind = "true"
    adverb: str = ""

    @property
    def text(self) -> str:
        """The sentence."""
        verb = f"{self.adverb} {self.verb}".strip()
        head = f"On {DAYS[self.day]} {self.actor} {verb}"
        if self.verb in FIXED:
            return f"{head} the {self.item}."
        if self.op in ("times", "split"):
            return f"{head} the {self.item} by {self.number}."
        return f"{head} {self.number} {self.item}."

    def apply(self, value: int) -> int | None:
        """The quantity after this fact, None where it would leave 1-99 or a division would not be exact."""
        if self.op == "split":
            return value // self.number if value % self.number == 0 else None
        after = {"add": value + self.number, "take": value - self.number, "times": value * self.number}[self.op]
        return after if 1 <= after <= 99 else None


@dataclass(frozen=True, slots=True)
class Story:
    """One problem from the inside. `told` is the order of the sentences; the first fact of `log` is the start."""

    actor: str
    item: str
    asked: int
    log: Reading
    told: Reading

    @property
    def truth(self) -> Reading:
        """The right reading."""
        return tuple(fact for fact in self.log if fact.kind == "true" and self.reaches(fact))

    def reaches(self, fact: Fact) -> bool:
        """True for a fact no later than the day asked for."""
        return fact.day <= self.asked

    @property
    def question(self) -> str:
        """The problem as it is asked."""
        head = f"How many {self.item} does {self.actor} have after {DAYS[self.asked]}?"
        return " ".join([head, *(fact.text for fact in self.told)])

    def goal(self, reading: Reading) -> str:
        """What is to be found and which events count, without numbers."""
        events = ", ".join(f"{DAYS[fact.day]} {fact.verb}" for fact in reading)
        return f"Find the {self.item} of {self.actor} after {DAYS[self.asked]}: {events}."


def values(reading: Reading) -> list[int] | None:
    """The quantity after each fact of a reading; None where one of them cannot be applied."""
    found = [reading[0].number]
    for fact in reading[1:]:
        after = fact.apply(found[-1])
        if after is None:
            return None
        found.append(after)
    return found


def guideline(reading: Reading) -> str:
    """The ordered operations of a reading, without results."""
    steps = [f"{DAYS[fact.day]} {fact.verb} {fact.op} {fact.number}" for fact in reading[1:]]
    return ", ".join([f"{DAYS[reading[0].day]} start {reading[0].number}", *steps]) + "."


def solution(reading: Reading, found: list[int] | None = None) -> str:
    """A reading worked out day by day, ending in the boxed answer.

    `found` are the quantities after each fact, if not the right ones. Raises ValueError where there are none.
    """
    found = found or values(reading)
    if found is None:
        raise ValueError("this reading leaves the range 1-99 and has no solution")
    lines = [f"{DAYS[reading[0].day]}: start with {found[0]}."]
    for fact, before, after in zip(reading[1:], found, found[1:], strict=False):
        sum_ = f"{before} {SIGNS[fact.op]} {fact.number} = {after}"
        lines.append(f"{DAYS[fact.day]} {fact.verb}: have {before}, {fact.op} {fact.number}. So {sum_}.")
    return "\n".join([*lines, f"The answer is \\boxed{{{found[-1]}}}."])


def _event(rng: random.Random, value: int, avoid: tuple[str, ...] = ()) -> tuple[str, Op, int]:
    """A verb, operation and number that keep `value` within 1-99."""
    divisors = [n for n in range(2, 10) if value % n == 0]
    room: dict[Op, list[int]] = {
        "add": list(range(1, min(40, 99 - value) + 1)),
        "take": list(range(1, min(60, value - 1) + 1)),
        "times": [n for n in range(2, 10) if value * n <= 99],
        "split": divisors,
    }
    weights: dict[Op, float] = {"add": 0.36, "take": 0.36, "times": 0.14, "split": 0.14}
    ops = [op for op in room if room[op]]
    while True:
        op = rng.choices(ops, [weights[op] for op in ops])[0]
        verb = rng.choice(VERBS[op])
        number = FIXED.get(verb) or rng.choice(room[op])
        if verb not in avoid and number in room[op]:
            return verb, op, number


def _confuser(rng: random.Random, true: Fact, value: int) -> Fact:
    """A fact on the day of `true` that does not count; `value` is the quantity before that day."""
    verb, op, number = _event(rng, value, avoid=(true.verb,))
    kind = rng.choices(list(CONFUSERS), list(CONFUSERS.values()))[0]
    actor, item, adverb = true.actor, true.item, ""
    matching = rng.random() < MATCHING
    if kind == "person":
        actor = rng.choice([name for name in (PEOPLE if matching else BYSTANDERS) if name != actor])
    elif kind == "item":
        item = rng.choice([thing for thing in (ITEMS if matching else SUNDRIES) if thing != item])
    else:
        adverb = rng.choice(ADVERBS[kind])
    return Fact(true.day, verb, op, number, actor, item, kind, adverb)


def _log(rng: random.Random, actor: str, item: str, steps: int, beyond: int, confusers: int) -> list[Fact]:
    """The facts in the order of the days: a start, `steps` events, `beyond` events after the day asked for."""
    first = rng.randint(0, 6 - steps - beyond)
    value = rng.randint(2, 60)
    log = [Fact(first, "had", "add", value, actor, item)]
    confused = set(rng.sample(range(1, steps + 1), confusers))
    for step in range(1, steps + beyond + 1):
        fact = Fact(first + step, *_event(rng, value), actor, item)
        day = [fact]
        if step in confused:
            day.insert(rng.randint(0, 1), _confuser(rng, fact, value))
        log += day
        value = fact.apply(value) or 0
    return log


def draw(rng: random.Random, setting: Setting) -> Story:
    """One story."""
    steps = 2 + rng.choices(range(len(setting.events)), setting.events)[0]
    beyond = int(rng.random() < 0.12 and steps < len(DAYS) - 1)
    confusers = rng.choices(range(len(setting.confusers)), setting.confusers)[0]
    confusers = min(confusers, steps, setting.facts - steps - beyond)
    actor, item = rng.choice(PEOPLE), rng.choice(ITEMS)
    log = _log(rng, actor, item, steps, beyond, confusers)
    told = log[1:]
    if rng.random() < 0.15:
        at = rng.randrange(len(told))  # one sentence told out of its turn
        told.insert(rng.randrange(len(told)), told.pop(at))
    return Story(actor, item, log[0].day + steps, tuple(log), (log[0], *told))


def split_of(question: str) -> str:
    """The one split that a question belongs to."""
    byte = hashlib.sha256(question.encode()).digest()[0]
    return next(split for split, bytes_ in SPLITS.items() if byte in bytes_)


def story(split: str, index: int, setting: str = "standard") -> Story:
    """The story at a position of a split."""
    prefix = "" if setting == "standard" else f"{setting}/"
    for attempt in count():
        candidate = draw(random.Random(f"{prefix}{split}/{index}/{attempt}"), SETTINGS[setting])
        if split_of(candidate.question) == split:
            return candidate
    raise AssertionError("unreachable: the count above never ends")


def problems(split: str, limit: int, offset: int = 0, setting: str = "standard") -> list[Problem]:
    """`limit` problems of a split from position `offset`; every position always holds the same problem."""
    if split not in SPLITS:
        raise UserError(f"lab data: there is no split {split!r}; the splits are {', '.join(SPLITS)}")
    if setting not in SETTINGS:
        raise UserError(f"lab data: there is no name {setting!r}; the names are {', '.join(SETTINGS)}")
    return [_problem(split, index, setting) for index in range(offset, offset + limit)]


def _problem(split: str, index: int, setting: str) -> Problem:
    told = story(split, index, setting)
    truth = told.truth
    confusers = sum(fact.kind != "true" for fact in told.log)
    level = 1 + (len(truth) - 3 + 2 * confusers) // 2
    meta = {"goal": told.goal(truth), "guideline": guideline(truth), "solution": solution(truth)}
    name = f"{split}-{index}" if setting == "standard" else f"{setting}-{split}-{index}"
    return Problem(name, told.question, str((values(truth) or [0])[-1]), str(level), meta)
