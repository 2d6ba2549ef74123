"""Completions from a jsonl file: for tests, for offline grading, for what other people's models said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cope_train.recipe.schema import RecordedModel
from cope_train.records import Completion, Failure, Outcome, Request, UserError

_OURS = {"question": "question", "completion": "completion", "id": "id", "role": "role", "index": "index"}


class RecordedBackend:
    """Answers a request by the question that stands in its last user turn, or by problem id.

    A row has a completion and a question or an id, and may have a role (solution when left out) and a sample
    index. Token counts are unknown, and so is the cost.
    """

    def __init__(self, name: str, spec: RecordedModel) -> None:
        """Raises UserError for a file that is missing, holds a broken line or lacks a column."""
        self.name = name
        self._path = Path(spec.path)
        columns = _OURS | spec.fields
        self._by_id: dict[tuple[str, str, int], str] = {}
        self._by_question: dict[tuple[str, str, int], str] = {}
        digest = hashlib.sha256(json.dumps(columns, sort_keys=True).encode())
        for number, line in self._lines():
            digest.update(line)
            self._add(_row(line, self._path, number), columns, number)
        self._fingerprint = digest.hexdigest()[:16]

    def identity(self, request: Request) -> dict[str, Any]:
        """The file's content and the question."""
        return {
            "recorded": self._fingerprint,
            "problem": request.problem_id,
            "role": request.role,
            "prompt": request.messages[-1].content,
        }

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Outcome, ...]]]:
        """Yield what the file holds; a sample that it lacks is a failure that says so."""
        for position, request in enumerate(requests):
            yield position, tuple(self._find(request, index) for index in request.indices)

    def _find(self, request: Request, index: int) -> Outcome:
        text = self._by_id.get((request.problem_id, request.role, index))
        if text is None:
            prompt = request.messages[-1].content
            text = self._by_question.get((prompt.strip(), request.role, index))
            if text is None:
                best = max((question for question in self._questions if question in prompt), key=len, default=None)
                text = self._by_question.get((best, request.role, index)) if best else None
        if text is None:
            return Failure(f"{self._path.name} holds no {request.role} {index} for problem {request.problem_id}")
        return Completion(text=text, finish="stop")

    @cached_property
    def _questions(self) -> set[str]:
        return {question for question, _, _ in self._by_question}

    def _add(self, row: Any, columns: dict[str, str], number: int) -> None:
        values = {ours: _dig(row, column) for ours, column in columns.items()}
        where = f"{self._path}:{number}"
        if not isinstance(values["completion"], str):
            raise UserError(f"{where}: no text in column {columns['completion']!r}; columns: {', '.join(row)}")
        if values["id"] is None and values["question"] is None:
            raise UserError(
                f"{where}: neither {columns['id']!r} nor {columns['question']!r}; columns: {', '.join(row)}"
            )
        rest = (values["role"] or "solution", values["index"] or 0)
        if values["id"] is not None:
            self._by_id[str(values["id"]), *rest] = values["completion"]
        if values["question"] is not None:
            self._by_question[str(values["question"]).strip(), *rest] = values["completion"]

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


def _dig(row: Any, column: str) -> Any:
    for part in column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row
