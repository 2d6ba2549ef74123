"""What the roles are told: one Jinja text file per role, `<set>/<role>.txt`, replaceable from a recipe.

A file has an optional first line `{# ... #}` with its version, then the system text, a line `---`, and the user
text. A file without the `---` line is user text only. Variables: question, goal, guideline (plans may be undefined).
The question comes before any plan, so that prompts for one problem share their beginning.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from jinja2 import ChainableUndefined, Environment, Template, TemplateError

from cope_train.errors import UserError
from cope_train.records import Message, Role

_HERE = Path(__file__).parent
_JINJA = Environment(undefined=ChainableUndefined, keep_trailing_newline=False, trim_blocks=True, autoescape=False)


@dataclass(frozen=True)
class PromptSet:
    """The prompt texts of one task, by role."""

    texts: Mapping[Role, str]

    def render(self, role: Role, **values: str) -> tuple[Message, ...]:
        """The chat for one role. Blank system texts are left out; surrounding white space is stripped."""
        parts = [template.render(values).strip() for template in _templates(self.texts[role])]
        speakers = ("system", "user")[-len(parts) :]
        return tuple(Message(who, part) for who, part in zip(speakers, parts, strict=True) if part)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each prompt's text, for manifests and plan sets."""
        return {role: hashlib.sha256(text.encode()).hexdigest() for role, text in sorted(self.texts.items())}


@cache
def _templates(text: str) -> tuple[Template, ...]:
    # Parted before anything is filled in: a question may hold such a line too.
    parts = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)
    return tuple(_JINJA.from_string(part) for part in parts)


def load(name: str, replaced: Mapping[Role, Path] | None = None) -> PromptSet:
    """The shipped set `name`, with the files in `replaced` in place of its own.

    Raises UserError for a file that is missing, is no text or is no template.
    """
    paths = {role: _HERE / name / f"{role}.txt" for role in get_args(Role)} | dict(replaced or {})
    texts = {}
    for role, path in paths.items():
        try:
            texts[role] = Path(path).read_text(encoding="utf-8")
            _templates(texts[role])
        except OSError as error:
            raise UserError(f"prompt for {role}: cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"prompt for {role}: {path} is no UTF-8 text: {error}") from error
        except TemplateError as error:
            raise UserError(f"prompt for {role}: {path} is no Jinja template: {error}") from error
    return PromptSet(texts)
