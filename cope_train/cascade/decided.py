"""When a vote is decided: what further samples say cannot change it any more, so they need not be asked."""

from __future__ import annotations

from collections.abc import Sequence

from cope_train.cascade.vote import accepts, majority


def decided(groups: Sequence[int | None], samples: int, threshold: float, winner: bool) -> bool:
    """Whether the votes so far, in index order, settle the gate and, where it matters, the winner.

    `groups` are the classes of the first of `samples` votes (None: no vote). The winner matters when the gate accepts;
    `winner` says that it also matters when the gate does not, because its plan is handed over.
    """
    left = samples - len(groups)
    if not left:
        return True
    counts = {group: groups.count(group) for group in groups if group is not None}
    most = max(counts.values(), default=0)
    if not accepts((most + left) / samples, threshold):
        return not winner or _settled(groups, counts, left)
    return accepts(most / samples, threshold) and _settled(groups, counts, left)


def _settled(groups: Sequence[int | None], counts: dict[int, int], left: int) -> bool:
    """Whether no other class can overtake the first: at equality the class that came first wins."""
    first = majority(groups).winner
    if first is None:
        return False
    leader = groups[first]
    rivals = [(groups.index(group), count) for group, count in counts.items() if group != leader]
    rivals.append((len(groups), 0))  # a class that nobody has voted for yet
    return all(count + left < counts[leader] + (at > first) for at, count in rivals)


def earliest(samples: int, threshold: float, winner: bool) -> int:
    """The fewest votes that can decide: so many can be asked at once and none of them for nothing."""
    best = ([0] * samples, list(range(samples)), [None] * samples)  # all agree, all differ, nobody votes
    return next(
        count
        for count in range(1, samples + 1)
        if any(decided(votes[:count], samples, threshold, winner) for votes in best)
    )
