"""Equality over a table of pairs, and a worker that hangs, dies or breaks."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from cope_train.tasks.equality import Equality

with (Path(__file__).parent / "equality_pairs.tsv").open(encoding="utf-8") as file:
    PAIRS = [tuple(row.values()) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@pytest.fixture(scope="module")
def equality() -> Iterator[Equality]:
    found = Equality(timeout=30)
    yield found
    found.close()


@pytest.mark.parametrize(("kind", "one", "two", "verdict"), PAIRS)
def test_a_pair(equality: Equality, kind: str, one: str, two: str, verdict: str) -> None:
    assert equality.same(one, two) == verdict
    assert equality.same(two, one) == verdict


def test_the_table_is_large_and_fair() -> None:
    assert len(PAIRS) >= 300
    assert 0.4 < sum(verdict == "different" for *_, verdict in PAIRS) / len(PAIRS) < 0.6
    assert len({(one, two) for _, one, two, _ in PAIRS}) == len(PAIRS)


def test_a_pair_that_never_ends_is_an_error_and_the_next_one_works() -> None:
    hasty = Equality(timeout=1)
    assert hasty.same("9^{9^{9^{9^{9}}}}", "9^{9^{9^{9^{8}}}}") == "error"
    hasty = Equality(timeout=30)
    assert hasty.same(r"\sqrt{8}", r"2\sqrt{2}") == "equal"
    hasty.close()


def test_a_worker_that_was_killed_is_replaced(equality: Equality) -> None:
    assert equality.same(r"\sqrt{18}", r"3\sqrt{2}") == "equal"
    equality._worker._process.kill()
    equality._worker._process.wait()
    assert equality.same(r"\sqrt{32}", r"4\sqrt{2}") == "error"  # this pair's worker died under it
    assert equality.same(r"\sqrt{72}", r"6\sqrt{2}") == "equal"


@pytest.mark.parametrize("nothing", ["1/0", "0/0", r"\frac{1}{0}", r"\frac{0}{0} + 1"])
def test_a_division_by_zero_is_no_number(equality: Equality, nothing: str) -> None:
    for finite in ("2", r"\frac{1}{2}", r"\sqrt{2}", "(1, 2)"):
        assert equality.same(nothing, finite) == equality.same(finite, nothing) == "different"


def test_numbers_and_text_need_no_worker() -> None:
    cheap = Equality()
    assert cheap.same("1,000", "1000.0") == "equal"
    assert cheap.same("east", "west") == "different"
    assert cheap.same("x" * 3000, "y" * 3000) == "different"
    assert cheap._worker is None
