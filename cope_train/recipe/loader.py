"""Loading a recipe: YAML and overrides through one strict schema, every error at once, each with its line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cope_train.errors import UserError
from cope_train.recipe import yaml_text
from cope_train.recipe.schema import Recipe
from cope_train.recipe.wrong import Wrong, nearest

_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "model_attributes_type": "a section with keys",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


class RecipeError(UserError):
    """Everything that is wrong with a recipe, one line an error."""


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with `key.path=value` overrides. Raises RecipeError with every error that was found."""
    path = Path(path)
    text = yaml_text.read(_read(path))
    errors = [_line(f"{path}:{line}", where, message) for line, where, message in text.errors]
    if not text.errors and not isinstance(text.data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values; see cope-train schema")
    if text.data is None:
        raise RecipeError("\n".join(errors))
    spoken, overridden = [], {}
    for override in overrides:
        message = _override(text.data, override, overridden)
        spoken += [message] if message else []
    try:
        recipe = Recipe.model_validate(text.data)
    except ValidationError as error:
        for where, message in _messages(error, text.data):
            errors.append(_line(_source(path, where, text.lines, overridden), where, message))
    if errors or spoken:
        raise RecipeError("\n".join(dict.fromkeys([*errors, *spoken])))
    return recipe


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(json.loads(recipe.model_dump_json(by_alias=True)), sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors."""
    return Recipe.model_json_schema(by_alias=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(other) for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else "; cope-train recipes lists the shipped ones"
        raise RecipeError(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error


def _override(data: dict, override: str, overridden: dict[tuple, str]) -> str | None:
    """Put one override into the data; the message when it cannot be."""
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        return f"override {override!r}: must be KEY=VALUE, such as train.planner.learning_rate=1e-4"
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    try:
        _set(data, path, yaml_text.scalar(value))
    except (ValueError, TypeError, IndexError) as error:
        return f"override {override}: {error}"
    overridden[path] = f"override {override}"
    return None


def _set(data: Any, path: tuple, value: Any) -> None:
    for depth, part in enumerate(path[:-1]):
        if isinstance(data, dict):
            part = str(part)
            if not isinstance(data.get(part), (dict, list)):
                data[part] = {}
        elif not isinstance(data, list) or not isinstance(part, int):
            raise TypeError(f"{'.'.join(map(str, path[:depth]))} has no keys below it")
        data = data[part]
    if isinstance(data, list) and isinstance(path[-1], int):
        data[path[-1]] = value
    elif isinstance(data, dict):
        data[str(path[-1])] = value
    else:
        raise TypeError(f"{'.'.join(map(str, path[:-1]))} has no keys below it")


def _source(path: Path, where: tuple, lines: dict[tuple, int], overridden: dict[tuple, str]) -> str:
    """The override or the line of the file that an error comes from."""
    for key, override in overridden.items():
        if where[: len(key)] == key or key[: len(where)] == where:
            return override
    while where not in lines:
        where = where[:-1]
    return f"{path}:{lines[where]}"


def _line(source: str, where: Iterable, message: str) -> str:
    key = ".".join(map(str, where))
    return f"{source}: {key}: {message}" if key else f"{source}: {message}"


def _messages(error: ValidationError, data: Any) -> Iterator[tuple[tuple, str]]:
    details = error.errors()
    for detail in details:
        if _other_member(detail, details):
            continue
        cause = (detail.get("ctx") or {}).get("error")
        if isinstance(cause, Wrong):
            for key, message in cause.places:
                parts = key.split(".") if key else []
                yield _real(detail["loc"], data) + tuple(int(p) if p.isdecimal() else p for p in parts), message
        else:
            where = _real(detail["loc"], data)
            yield where, _plain(detail, where)


def _other_member(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """True for what pydantic says of a union's member that was not meant: a section is no word, a word no section."""
    *place, member = detail["loc"] or ("",)
    if detail["type"] == "literal_error" and isinstance(detail["input"], dict):
        return True
    siblings = [other for other in details if other is not detail and list(other["loc"][:-1]) == place]
    return detail["type"] == "dict_type" and any(other["type"] == "literal_error" for other in siblings)


def _real(location: tuple, data: Any) -> tuple:
    """An error's place less the names of union members, which pydantic puts in between."""
    where: list = []
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        known = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if part in known:
            data = data[part]
        elif not last or not isinstance(data, dict):
            continue
        where.append(part)
    return tuple(where)


def _plain(detail: ErrorDetails, where: tuple) -> str:
    kind, context = detail["type"], detail.get("ctx") or {}
    given = detail.get("input")
    if kind == "extra_forbidden":
        return f"unknown key; {nearest(str(where[-1]), _keys(detail['loc'][:-1]))}"
    if kind == "missing":
        return "missing: this key is required"
    if kind in ("literal_error", "union_tag_invalid"):
        valid = context.get("expected") or context.get("expected_tags")
        names = [name.strip(" '") for name in str(valid).replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(names)}, not {given.get('backend') if isinstance(given, dict) else given!r}"
    if kind == "union_tag_not_found":
        return "missing key `backend`: one of local, api, recorded"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {given!r}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {context[bound]}, is {given}"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]} (given: {given!r})"


def _keys(location: tuple) -> list[str]:
    """The keys that a section of the schema knows, by following an error's place from the top."""
    section: Any = Recipe
    for part in location:
        models = list(_models(section))
        fields = [f for model in models for name, f in model.model_fields.items() if part in (name, f.alias)]
        # A key of a mapping leads nowhere new; the tag of a union chooses a member.
        tagged = (model for model in models if part in _tags(model))
        section = fields[0].annotation if fields else next(tagged, section)
    return [field.alias or name for model in _models(section) for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _tags(model: type[BaseModel]) -> tuple:
    field = model.model_fields.get("backend")
    return get_args(field.annotation) if field else ()
