"""The typed recipe and its loader: the only room that knows YAML."""

from cope_train.recipe.loader import dump, load
from cope_train.recipe.schema import Recipe

__all__ = ["Recipe", "dump", "load"]
