"""Which samples share the beginning of their prompts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One sample to be decoded: whose it is (any mark of the caller's), its completion key, its prompt's tokens.

    Rows of one `family` (a problem's id) are worth looking at for a common beginning.
    """

    mark: Any
    family: Hashable
    key: str
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose prompts begin with the same `shared` tokens, and have at least one more each."""

    rows: tuple[Row, ...]
    shared: int

    def halves(self) -> tuple[Group, Group]:
        """The group in two, for when memory does not hold it."""
        half = len(self.rows) // 2
        return group(self.rows[:half]), group(self.rows[half:])

    def tokens(self, new: int) -> int:
        """Tokens that its keys and values take when each row says `new` tokens."""
        longest = max(len(row.prompt) for row in self.rows) - self.shared
        return self.shared + len(self.rows) * (longest + new)


def group(rows: Sequence[Row]) -> Group:
    """One group of rows, sharing what their prompts have in common; the last token of each is always its own."""
    prompts = [row.prompt for row in rows]
    first, last = min(prompts), max(prompts)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return Group(tuple(rows), min(common, *(len(prompt) - 1 for prompt in prompts)))


def groups(rows: Iterable[Row]) -> list[Group]:
    """A group for each family, those with the longest prefixes first.

    Prompts put the problem before the plan, so the samples of one problem share most of their prompts.
    """
    families: dict[Hashable, list[Row]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    return sorted(map(group, families.values()), key=lambda found: -found.shared)
