"""A decided vote is what the whole vote would have been, and is called so as early as can be."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope_train.cascade.decided import decided, earliest
from cope_train.cascade.vote import accepts, majority

VOTES = st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=9)
THRESHOLDS = st.sampled_from([0.125, 0.25, 0.5, 0.625, 0.75, 1.0, 1.01])


def outcome(groups: list, threshold: float, winner: bool) -> tuple:
    vote = majority(groups)
    accepted = accepts(vote.consensus, threshold)
    return accepted, vote.winner if accepted or winner else None


@given(VOTES, THRESHOLDS, st.booleans())
def test_stopping_at_a_decided_vote_changes_nothing(votes: list, threshold: float, winner: bool) -> None:
    count = next(k for k in range(1, len(votes) + 1) if decided(votes[:k], len(votes), threshold, winner))
    said = votes[:count]
    stopped = majority(said)
    accepted = accepts(stopped.consensus * count / len(votes), threshold)
    assert (accepted, stopped.winner if accepted or winner else None) == outcome(votes, threshold, winner)


@pytest.mark.parametrize("winner", [True, False])
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75, 1.0])
def test_a_vote_is_called_decided_exactly_when_no_continuation_changes_it(threshold: float, winner: bool) -> None:
    """Every way to go on is tried, for every beginning of five votes over three classes and none."""
    for count in range(1, 5):
        for votes in product([None, 0, 1, 2], repeat=count):
            ends = product([None, 0, 1, 2, 3, 4, 5], repeat=5 - count)
            found = {outcome([*votes, *rest], threshold, winner) for rest in ends}
            assert decided(votes, 5, threshold, winner) == (len(found) == 1), votes


def test_the_papers_gates_need_six_and_four_of_eight() -> None:
    assert earliest(8, 0.75, True) == 6
    assert earliest(8, 0.5, False) == 4
    assert earliest(8, 1.01, False) == 1  # a gate that never accepts
