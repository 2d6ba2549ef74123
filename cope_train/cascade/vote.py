"""The consensus gate: samples vote by equivalence class of their answers (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vote:
    """`winner` is the index of the first voter of the winning class (None: nobody voted); `consensus` its share
    of all n samples, those without an answer included."""

    winner: int | None
    consensus: float


def majority(groups: Sequence[int | None]) -> Vote:
    """The largest class; of classes equally large, the one whose first voter has the lowest index."""
    voters: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        if group is not None:
            voters.setdefault(group, []).append(index)
    if not voters:
        return Vote(None, 0.0)
    # max() keeps the first of equals, and classes stand in the order of their first voters.
    winners = max(voters.values(), key=len)
    return Vote(winners[0], len(winners) / len(groups))


def accepts(consensus: float, threshold: float) -> bool:
    """The paper's text says "exceeds"; we accept at equality too, with room for rounding (6 of 8 meets 0.75)."""
    return consensus >= threshold - 1e-9
