"""The bundled tiny models and the world they live in: how they are made, and where their weights lie."""

from __future__ import annotations

from pathlib import Path

from cope_train.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("small", "middle", "large")


def path(name: str) -> Path:
    """The folder of a bundled model."""
    if name not in NAMES:
        raise UserError(f"lab model: there is no {name!r}; the names are {', '.join(NAMES)} (as lab/small)")
    folder = WEIGHTS / name
    if not (folder / "config.json").exists():
        raise UserError(f"lab model: {folder} holds no model; scripts/make_lab_pair.py makes them")
    return folder
