"""What is wrong with a recipe beyond types and bounds: places and plain words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class Wrong(ValueError):
    """Everything wrong that one check found: (key below the place that is checked, what is wrong)."""

    def __init__(self, places: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {message}" for key, message in places))
        self.places = places


def unknown(name: str, valid: Sequence[str]) -> str:
    """Says that a name points nowhere, and which one was probably meant."""
    return f"unknown name {name!r}; {nearest(name, valid)}"


def nearest(name: str, valid: Sequence[str]) -> str:
    """The valid name that is most alike, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(valid)}"
