"""The recipes that come with the project, and what their headers say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cope_train.errors import UserError


@dataclass(frozen=True)
class Shipped:
    """One recipe's header: what it shows, what it needs, how to run it, what that cost."""

    path: Path
    shows: str
    needs: str
    run: str
    cost: str


def shipped() -> list[Shipped]:
    """The recipes in ./recipes, or else those of the checkout that this package runs from.

    Raises UserError when there are none: an installed package leaves them behind.
    """
    places = (Path("recipes"), Path(__file__).parent.parent.parent / "recipes")
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise UserError("no folder `recipes` here: go to a checkout of cope_train, or copy its recipes beside you")
    return [_header(path) for path in sorted(folder.rglob("*.yaml"))]


def _header(path: Path) -> Shipped:
    fields = {"shows": "", "needs": "", "run": "", "cost": ""}
    name = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head, colon, rest = line[1:].strip().partition(": ")
        if colon and head in fields:
            name, text = head, rest
        else:
            text = line[1:].strip()
        if name:
            fields[name] = f"{fields[name]} {text}".strip()
    return Shipped(path, **fields)
