"""What the roles are told: one Jinja text file per role, `<set>/<role>.txt`, replaceable from a recipe.

A file has an optional first line `{# ... #}` with its version, then the system text, a line `---`, and the user
text. A file without the `---` line is user text only. Variables: question, goal, guideline (plans may be undefined).
The question comes before any plan, so that prompts for one problem share their beginning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from jinja2 import ChainableUndefined, Environment, Template, TemplateError

from cope_train.records import Message, Role, UserError

_HERE = Path(__file__).parent
_JINJA = Environment(undefined=ChainableUndefined, keep_trailing_newline=False, trim_blocks=True, autoescape=False)


@dataclass(frozen=True)
class PromptSet:
    """The prompt texts of one task, by role."""

    texts: Mapping[Role, str]

    def render(self, role: Role, **values: str) -> tuple[Message, ...]:
        """The chat for one role. Blank system texts are left out; surrounding white space is stripped."""
        text = _template(self.texts[role]).render(values)
        system, dash, user = text.partition("\n---\n")
        parts = (("system", system), ("user", user)) if dash else (("user", text),)
        return tuple(Message(who, part.strip()) for who, part in parts if part.strip())

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each prompt's text, for manifests and plan sets."""
        return {role: hashlib.sha256(text.encode()).hexdigest() for role, text in sorted(self.texts.items())}


@cache
def _template(text: str) -> Template:
    return _JINJA.from_string(text)


def load(name: str, replaced: Mapping[Role, Path] | None = None) -> PromptSet:
    """The shipped set `name`, with the files in `replaced` in place of its own.

    Raises UserError for a file that is missing or is no template.
    """
    paths = {role: _HERE / name / f"{role}.txt" for role in get_args(Role)} | dict(replaced or {})
    texts = {}
    for role, path in paths.items():
        try:
            texts[role] = Path(path).read_text(encoding="utf-8")
            _template(texts[role])
        except OSError as error:
            raise UserError(f"prompt for {role}: cannot read {path}: {error.strerror}") from error
        except TemplateError as error:
            raise UserError(f"prompt for {role}: {path} is no Jinja template: {error}") from error
    return PromptSet(texts)
