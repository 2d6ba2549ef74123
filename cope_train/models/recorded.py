"""Completions from a jsonl file: for tests, for offline grading, for what other people's models said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, get_args

from cope_train.errors import UserError
from cope_train.recipe.model_specs import RecordedModel
from cope_train.records import Completion, Failure, Outcome, Request, Role

_Key = tuple[str, str, int]  # question or id, role, sample index
_OURS = {"question": "question", "completion": "completion", "id": "id", "role": "role", "index": "index"}


class _Said(NamedTuple):
    text: str
    line: int


class RecordedBackend:
    """Answers a request by problem id, or by the question that its last user turn begins with.

    The question ends at a line break or with the turn. A row has a completion and a question or an id, and may have
    a role (solution when left out) and a sample index; rows without one are numbered in their order. Token counts
    are unknown, and so is the cost.
    """

    def __init__(self, name: str, spec: RecordedModel) -> None:
        """Raises UserError for a file that is missing, holds a broken line, lacks a column or says a sample twice."""
        self.name = name
        self._path = Path(spec.path)
        columns = _OURS | spec.fields
        self._by_id: dict[_Key, _Said] = {}
        self._by_question: dict[_Key, _Said] = {}
        digest = hashlib.sha256(json.dumps(columns, sort_keys=True).encode())
        rows = []
        for number, line in self._lines():
            digest.update(line)
            rows.append((number, self._read(_row(line, self._path, number), columns, number)))
        # Those with an index first, so that the others are numbered around them.
        for number, values in sorted(rows, key=lambda row: row[1]["index"] is None):
            self._add(values, number)
        self._fingerprint = digest.hexdigest()[:16]

    def identity(self, request: Request) -> dict[str, Any]:
        """The file's content and the question."""
        return {
            "recorded": self._fingerprint,
            "problem": request.problem_id,
            "role": request.role,
            "prompt": request.messages[-1].content,
        }

    def generate(
        self, requests: Iterable[Request], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Yield what the file holds; a sample that it lacks is a failure that says so."""
        for position, request in enumerate(requests):
            if not go_on():
                return
            yield position, tuple(self._find(request, index) for index in request.indices)

    def _find(self, request: Request, index: int) -> Outcome:
        said = self._by_id.get((request.problem_id, request.role, index))
        if said is None:
            lines = request.messages[-1].content.splitlines()
            begins = ("\n".join(lines[:end]).strip() for end in range(len(lines), 0, -1))
            best = next((begin for begin in begins if begin in self._questions), None)
            said = self._by_question.get((best, request.role, index)) if best else None
        if said is None:
            return Failure(f"{self._path.name} holds no {request.role} {index} for problem {request.problem_id}")
        return Completion(text=said.text, finish="stop")

    @cached_property
    def _questions(self) -> set[str]:
        return {question for question, _, _ in self._by_question}

    def _read(self, row: dict[str, Any], columns: dict[str, str], number: int) -> dict[str, Any]:
        values = {ours: _dig(row, column) for ours, column in columns.items()}
        where = f"{self._path}:{number}"
        if not isinstance(values["completion"], str):
            raise UserError(f"{where}: no text in column {columns['completion']!r}; columns: {', '.join(row)}")
        if values["id"] is None and values["question"] is None:
            raise UserError(
                f"{where}: neither {columns['id']!r} nor {columns['question']!r}; columns: {', '.join(row)}"
            )
        role, index = values["role"], values["index"]
        if role is not None and not isinstance(role, str):
            raise UserError(f"{where}: a role is one of {', '.join(get_args(Role))}, not {role!r}")
        if index is not None and (type(index) is not int or index < 0):
            raise UserError(f"{where}: an index is a whole number from 0, not {index!r}")
        return values

    def _add(self, values: dict[str, Any], number: int) -> None:
        named = values["id"] is not None
        if named:
            self._put(self._by_id, str(values["id"]), values, number)
        if values["question"] is not None:
            self._put(self._by_question, _tidy(str(values["question"])), values, number, alike=named)

    def _put(
        self, said: dict[_Key, _Said], name: str, values: dict[str, Any], number: int, alike: bool = False
    ) -> None:
        """Keep a row under its index, or the next free one. The first of problems that are `alike` but in id stays."""
        role, index = values["role"] or "solution", values["index"]
        if index is None:
            index = next(free for free in count() if (name, role, free) not in said)
        first = said.setdefault((name, role, index), _Said(values["completion"], number))
        if first.line != number and not alike:
            raise UserError(
                f"{self._path}:{number}: {role} {index} of {name[:60]!r} stands on line {first.line} already; give "
                "each row an index of its own, or none to any"
            )

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self._path.open("rb") as file:
                yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        except OSError as error:
            raise UserError(f"model {self.name}: cannot read {self._path}: {error.strerror}") from error


def _row(line: bytes, path: Path, number: int) -> Any:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}:{number}: no valid JSON ({error}); is the file cut off?") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: a row must be an object with columns")
    return row


def _tidy(question: str) -> str:
    return "\n".join(question.splitlines()).strip()


def _dig(row: Any, column: str) -> Any:
    for part in column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row
