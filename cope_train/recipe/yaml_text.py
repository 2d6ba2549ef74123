"""YAML text into plain data, with the line of every key, and duplicate keys as errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2: 5e-4 is a number, yes and no are words."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", "~n\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    firsts = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), firsts)


@dataclass
class Text:
    """Data, the line (from 1) of every key path in it, and errors as (line, key path, message)."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    errors: list[tuple[int, Path, str]] = field(default_factory=list)


def read(text: str) -> Text:
    """Parse YAML. A syntax error is the only error of the result when there is one."""
    found = Text()
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        found.data = None if node is None else _build(loader, node, (), found, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        found.errors = [(mark.line + 1 if mark else 1, (), f"not valid YAML: {reason}")]
    except yaml.YAMLError as error:
        found.errors = [(1, (), f"not valid YAML: {error}")]
    finally:
        loader.dispose()
    return found


def scalar(text: str) -> Any:
    """The value of a command-line override. Raises ValueError when it is not valid YAML."""
    found = read(text)
    if found.errors:
        raise ValueError(found.errors[0][2])
    return found.data


def _build(loader: _Loader, node: yaml.Node, path: Path, found: Text, above: tuple[yaml.Node, ...]) -> Any:
    found.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node)
    if any(node is parent for parent in above):
        found.errors.append(
            (found.lines[path], path, "an alias (*) stands inside what it names; write out what is meant")
        )
        return None
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*path, i), found, above) for i, child in enumerate(node.value)]
    values: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key, line = str(_scalar(loader, key_node)), key_node.start_mark.line + 1
        if key in values:
            found.errors.append((line, (*path, key), f"key stands twice, first on line {found.lines[*path, key]}"))
            continue
        found.lines[*path, key] = line
        values[key] = _build(loader, value_node, (*path, key), found, above)
    return values


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    if node.tag == "tag:yaml.org,2002:float":
        return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))
    if node.tag == "tag:yaml.org,2002:int":
        return int(node.value)
    return loader.construct_object(node, deep=True)
