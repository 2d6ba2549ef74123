"""YAML that can be parsed but means nothing: reported with its line."""

from __future__ import annotations

import pytest

from cope_train.recipe import yaml_text


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        ("b: 1\na: &x [*x]\n", 2, ("a", 0)),
        ("b: 1\na: &x\n  c: {d: *x}\n", 3, ("a", "c", "d")),
    ],
)
def test_an_alias_inside_what_it_names(text: str, line: int, path: tuple) -> None:
    ((found_line, found_path, message),) = yaml_text.read(text).errors
    assert (found_line, found_path) == (line, path)
    assert "stands inside what it names" in message


def test_an_alias_may_stand_twice() -> None:
    found = yaml_text.read("a: &x [1]\nb: [*x, *x]\n")
    assert (found.data, found.errors) == ({"a": [1], "b": [[1], [1]]}, [])
