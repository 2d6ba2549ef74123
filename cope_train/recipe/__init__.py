"""The typed recipe and its loader: the only room that knows YAML."""

from cope_train.recipe.loader import RecipeError, dump, json_schema, load
from cope_train.recipe.schema import Recipe
from cope_train.recipe.shipped import shipped

__all__ = ["Recipe", "RecipeError", "dump", "json_schema", "load", "shipped"]
