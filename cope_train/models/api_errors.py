"""What went wrong with a call: whether another attempt is worth it, and what to say to the user when none is.

No word that leaves this file holds a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cope_train.errors import NotRunnableHere, ServerError
from cope_train.models.api_limits import retry_after
from cope_train.models.api_wire import Malformed, WrongModel
from cope_train.recipe.model_specs import ApiModel

# Ask again; give this request up; stop everything; ask again, and stop everything if nothing was ever answered.
Cure = Literal["again", "give_up", "stop", "again_or_stop"]

_LONGEST_PAUSE = 600.0
_PASSING = {408, 409, 425, 429}
_OVERLOADED = {429, 503, 529}
_NO_MODEL = re.compile(
    r"model_not_found|(invalid|unknown|no such) model|not a valid model|pinned to|model.{0,200}(not found|not exist)",
    re.IGNORECASE | re.DOTALL,
)
_BROKE = re.compile(r"insufficient_quota|insufficient (credit|balance|fund)", re.IGNORECASE)
_OPENAI_KEY = re.compile(r"\bsk-[\w*.-]{4,}")
_NAME = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_WORDS = 300
_SHORTEST_SECRET = 8  # a word such as "none", for a server that wants no key, is no secret and may be part of others


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a call failed, what to do, and whether the server is overloaded or asks for a pause (seconds)."""

    words: str
    cure: Cure
    advice: str = ""
    overloaded: bool = False
    pause: float | None = None


class Secrets:
    """The key and the secret headers of a model, from the environment; and how to keep them out of every text."""

    def __init__(self, name: str, spec: ApiModel) -> None:
        """Raises NotRunnableHere when an environment variable that the recipe names is not set."""
        if not os.environ.get(spec.api_key_env):
            raise NotRunnableHere(
                f"model {name}: no key for {spec.model}; set the environment variable {spec.api_key_env} "
                "(any word for a server that wants none)"
            )
        self.key = os.environ[spec.api_key_env]
        self._hidden = {self.key: "<key>"}

        def value(header: str, found: re.Match) -> str:
            variable = found[1]
            if not os.environ.get(variable):
                raise NotRunnableHere(
                    f"model {name}: models.{name}.headers.{header} needs the environment variable {variable}"
                )
            self._hidden[os.environ[variable]] = f"<{variable}>"
            return os.environ[variable]

        self.headers = {
            header: _NAME.sub(lambda found, header=header: value(header, found), text)
            for header, text in spec.headers.items()
        }

    def hide(self, text: str) -> str:
        """The text without any secret, cut to a readable length."""
        for secret in sorted(self._hidden, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, self._hidden[secret])
        return _OPENAI_KEY.sub("<key>", text)[:_WORDS]


def trouble(error: Exception, name: str, spec: ApiModel, answered: bool) -> Trouble:
    """What to make of an error of a call. `answered`: the server has answered a call before."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _refusal(error, name, spec, answered)
    if isinstance(error, WrongModel):
        return Trouble(str(error), "again_or_stop", f"change models.{name}.model; if it is meant, say its name in "
                       f"models.{name}.answers_as")  # fmt: skip
    if isinstance(error, (TimeoutError, openai.APITimeoutError)) and not _unreachable(error):
        return Trouble(f"no answer within {spec.timeout:g} seconds", "again", overloaded=True)
    if isinstance(error, openai.APIConnectionError):
        words = f"{error.message} {_cause(error)}".strip()
        if _unreachable(error):
            advice = f"is the server up and the network there? The address is in models.{name}.base_url"
            return Trouble(f"cannot be reached: {words}", "again_or_stop", advice)
        return Trouble(words, "again")
    if isinstance(error, Malformed):
        return Trouble(str(error), "again")
    if isinstance(error, ValueError):
        return Trouble(f"the reply is no JSON, or was cut off ({error})", "again")
    return Trouble(f"{type(error).__name__}: {error}", "again")


def stopped(words: str, advice: str, name: str, spec: ApiModel, address: str) -> ServerError:
    """The one paragraph a user gets when nothing more can be asked of this server."""
    return ServerError(f"model {name}: {spec.model} at {address}: {words}" + (f"; {advice}" if advice else ""))


def _refusal(error: Any, name: str, spec: ApiModel, answered: bool) -> Trouble:
    status, words = error.status_code, f"{error.status_code}: {_said(error)}"
    if status == 401 or status == 403:
        advice = f"is the key in the environment variable {spec.api_key_env} right? models.{name}.api_key_env names it"
        return Trouble(words, "stop", advice)
    if status == 402 or (status == 429 and _BROKE.search(words)):
        return Trouble(words, "stop", f"the account of the key in {spec.api_key_env} has nothing left to spend")
    if status in (400, 404) and (_NO_MODEL.search(words) or getattr(error, "code", None) == "model_not_found"):
        return Trouble(words, "stop", f"change models.{name}.model to a name the server knows")
    if status in (404, 405) and not answered:
        advice = f"change models.{name}.base_url (it ends in /v1 with most servers) or models.{name}.model"
        return Trouble(words, "stop", advice)
    if status not in _PASSING and status < 500:
        return Trouble(words, "give_up")
    pause = retry_after(error.response.headers)
    if pause is not None and pause > _LONGEST_PAUSE:
        advice = f"it asks to be left alone for {pause / 3600:.1f} hours; the same command goes on from here"
        return Trouble(words, "stop", advice)
    return Trouble(words, "again", overloaded=status in _OVERLOADED, pause=pause)


def _said(error: Any) -> str:
    """The server's own words in a refusal, however it wraps them."""
    body = error.body
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            body = body[key]
    code = getattr(error, "code", None)
    text = body if isinstance(body, str) else str(body) if body else error.response.text
    text = " ".join(text.split()) or "no reason given"
    return f"{text} ({code})" if code and code not in text else text


def _cause(error: Exception) -> str:
    return str(error.__cause__ or "")


def _unreachable(error: Exception) -> bool:
    """True when no connection came about at all."""
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol")
