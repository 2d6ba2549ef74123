"""Majority votes, ties, empty votes, and the gate at its threshold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope_train.cascade.vote import accepts, majority


@pytest.mark.parametrize(
    ("groups", "winner", "consensus"),
    [
        ([0, 0, 1], 0, 2 / 3),
        ([1, 0, 0], 1, 2 / 3),
        ([0, 1, 1, 0], 0, 0.5),  # a tie goes to the class that spoke first
        ([1, 0, 0, 1], 0, 0.5),
        ([None, 0, None, 0], 1, 0.5),  # samples without an answer count in n, not in the vote
        ([None, None], None, 0.0),
        ([3], 0, 1.0),
    ],
)
def test_majority(groups: list, winner: int | None, consensus: float) -> None:
    vote = majority(groups)
    assert (vote.winner, vote.consensus) == (winner, pytest.approx(consensus))


@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=9))
def test_no_class_is_larger_than_the_winners(groups: list) -> None:
    vote = majority(groups)
    voters = [group for group in groups if group is not None]
    if not voters:
        assert vote.winner is None
    else:
        assert voters.count(groups[vote.winner]) == max(map(voters.count, voters))
        assert groups.index(groups[vote.winner]) == vote.winner


def test_the_gate_accepts_at_equality() -> None:
    assert accepts(6 / 8, 0.75)
    assert not accepts(5 / 8, 0.75)
    assert accepts(0.1 + 0.2, 0.3)
