"""Problems from the lab, from local files and from the hub, with every bad row named by file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from cope_train.errors import NotRunnableHere, UserError
from cope_train.records import Problem

# Our field -> columns it may stand in, first match first. They cover GSM8K, MATH-500, the AIME sets and most others.
_COLUMNS = {
    "question": ("question", "problem", "prompt"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "id": ("id", "unique_id", "task_id", "ID"),
    "level": ("level", "difficulty"),
}
_REQUIRED = ("question", "answer")
_ENDINGS = (".jsonl", ".json", ".parquet")
_WHOLE = re.compile(r"[-+]?\d{1,1000}")
Row = tuple[str, Mapping[str, Any]]


class Source(Protocol):
    """Where a split's problems come from (`recipe.schema.Data`)."""

    source: str
    name: str | None
    split: str
    revision: str | None
    limit: int | None
    offset: int
    fields: Mapping[str, str]


def load(source: Source, task: str) -> list[Problem]:
    """The problems of one split, in the source's order.

    Raises UserError naming file, line and column for what is wrong; NotRunnableHere when a hub cannot be reached.
    """
    if source.source == "lab":
        if task != "word_problems":
            raise UserError(f"source lab holds word problems; the task is {task}")
        from cope_train.lab import world

        return world.problems(source.split, source.limit or 1000, source.offset, source.name or "standard")
    rows = _local(source) if _is_local(source.source) else _hub(source)
    problems: list[Problem] = []
    end = None if source.limit is None else source.offset + source.limit
    for number, (where, row) in enumerate(rows):
        if number >= source.offset and (end is None or number < end):
            problems.append(_problem(where, row, number, source))
            if task == "word_problems" and not _WHOLE.fullmatch(problems[-1].answer):
                answer = problems[-1].answer[:60]
                raise UserError(f"{where}: the answer of a word problem is a whole number, not {answer!r}")
    if not problems:
        raise UserError(f"{source.source}: no problem in it{_window(source)}")
    return _unique(problems, source.source)


def overlap(splits: Mapping[str, Sequence[Problem]]) -> list[str]:
    """One message for each two splits that share a problem, by its question less case and white space."""
    messages = []
    for one, two in combinations(splits, 2):
        other = {_normal(problem.question) for problem in splits[two]}
        shared = [problem.id for problem in splits[one] if _normal(problem.question) in other]
        if shared:
            noun = "problem" if len(shared) == 1 else "problems"
            messages.append(
                f"splits {one} and {two} share {len(shared)} {noun} (in {one}: {', '.join(shared[:3])}"
                f"{', ...' if len(shared) > 3 else ''}); what is trained or fitted on may not be tested on"
            )
    return messages


def _normal(question: str) -> str:
    return " ".join(question.lower().split())


def _is_local(source: str) -> bool:
    return source.endswith(_ENDINGS) or Path(source).exists()


def _window(source: Source) -> str:
    return f" after skipping {source.offset}" if source.offset else ""


def _local(source: Source) -> Iterator[Row]:
    path = Path(source.source).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it that ends in one of {', '.join(_ENDINGS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".jsonl":
        return _jsonl(path)
    if path.suffix == ".json":
        return _numbered(path, _json(path))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            return _numbered(path, pyarrow.parquet.read_table(path).to_pylist())
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no parquet file: {error}") from error
    raise UserError(f"{path}: must end in one of {', '.join(_ENDINGS)}")


def _numbered(path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    return ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))


def _jsonl(path: Path) -> Iterator[Row]:
    # By hand, line by line: the line's number is what a user needs to find the broken one.
    good = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = _decoded(raw, f"{path}:{number}")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                begin = line.strip()[:60]
                hint = f"the file may have been cut off after {good} good rows"
                raise UserError(f"{path}:{number}: no valid JSON ({error}): {begin!r}; {hint}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: a row must be an object with columns, not {line.strip()[:60]!r}")
            good += 1
            yield f"{path}:{number}", row


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: no UTF-8 text ({error}); save the file as UTF-8") from error


def _json(path: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(_decoded(path.read_bytes(), str(path)))
    except ValueError as error:
        raise UserError(f"{path}: no valid JSON ({error}); is the file cut off?") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: must hold a list of objects")
    return rows


def _hub(source: Source) -> Iterator[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    name = source.source
    if name.count("/") != 1:
        raise UserError(f"{name}: no such file, and no hub id (organisation/name)")
    try:
        rows = load_dataset(name, source.name, split=source.split, revision=source.revision)
    except GatedRepoError as error:
        raise NotRunnableHere(f"{name}: its terms must be accepted on its hub page first; then set HF_TOKEN") from error
    except (ConnectionError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        if isinstance(error, DatasetNotFoundError) and "doesn't exist on the Hub" in str(error):
            raise UserError(f"{name}: {error}") from error
        raise NotRunnableHere(
            f"{name}: the data hub cannot be reached from this machine, and it is not in the local cache; "
            "fetch it where there is a network, and name the file as data.*.source"
        ) from error
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return ((f"{name}, row {number}", row) for number, row in enumerate(rows, start=1))


def _problem(where: str, row: Mapping[str, Any], number: int, source: Source) -> Problem:
    values = {}
    for ours, columns in _COLUMNS.items():
        column = source.fields.get(ours) or next((name for name in columns if name in row), columns[0])
        value = _dig(row, column)
        if value is None or (isinstance(value, str) and not value.strip()):
            if ours in _REQUIRED:
                raise UserError(f"{where}: no {ours} in column {column!r}; columns: {', '.join(map(str, row))}")
            value = None
        values[ours] = None if value is None else str(value)
    if unknown := set(source.fields) - set(_COLUMNS):
        raise UserError(f"data fields: unknown {', '.join(sorted(unknown))}; there are {', '.join(_COLUMNS)}")
    values["answer"] = _gold(values["answer"])
    name = values.pop("id") or f"{source.split}-{number:05d}"
    return Problem(id=name, **values)


def _gold(answer: str) -> str:
    """GSM8K's answers are worked solutions that end in `#### n`, sometimes with thousands commas."""
    _, mark, final = answer.rpartition("####")
    return final.strip().replace(",", "") if mark else answer.strip()


def _dig(row: Any, column: str) -> Any:
    if isinstance(row, Mapping) and column in row:
        return row[column]
    for part in column.split("."):
        row = row.get(part) if isinstance(row, Mapping) else None
    return row


def _unique(problems: list[Problem], source: str) -> list[Problem]:
    seen: dict[str, Problem] = {}
    for problem in problems:
        if problem.id in seen:
            raise UserError(f"{source}: id {problem.id!r} stands twice; ids tell problems apart")
        seen[problem.id] = problem
    return problems
