"""What the command line's short options do to a recipe."""

from __future__ import annotations

from typing import Any

from cope_train.errors import UserError
from cope_train.recipe.schema import Recipe


def narrowed(recipe: Recipe, limit: int | None = None, seed: int | None = None, only: str | None = None) -> Recipe:
    """The recipe with at most `limit` problems a split, one seed for everything, or one role's adapter only."""
    values: dict[str, Any] = recipe.model_dump(by_alias=True)
    if limit:
        for split in filter(None, values["data"].values()):
            split["limit"] = min(limit, split["limit"] or limit)
    if seed is not None:
        values["seeds"] = [seed]
    training = values["train"] or {}
    for role in ("planner", "executor"):
        if seed is not None and training.get(role):
            training[role]["seed"] = seed
        if only and only != role and training:
            training[role] = None
    if only:
        if not training.get(only):
            raise UserError(f"--only {only}: recipe {recipe.name} does not train one (section train.{only})")
        values["evaluate"]["adapters"] = [name for name in values["evaluate"]["adapters"] if name in ("none", only)]
    return Recipe.model_validate(values)
