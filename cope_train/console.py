"""What a person sees while a verb runs, and the log file of the run."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cope_train.errors import UserError

log = logging.getLogger(__name__)
_console = Console(highlight=False, soft_wrap=True)


_SELDOM = 30.0  # seconds between lines of progress where there are no bars


class _Speed(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="progress.data.speed")


class Terminal:
    """Lines and progress bars on the terminal; lines only where it is no terminal; nothing when quiet."""

    def __init__(self, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        columns = (
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeElapsedColumn()),
            TextColumn("{task.fields[note]}"),
        )
        shown = _console.is_terminal and not quiet
        self._progress = Progress(*columns, console=_console, disable=not shown, transient=True)
        self._bars: dict[str, TaskID] = {}
        self._notes: dict[str, str] = {}
        self._clock, self._told = clock, clock()

    def say(self, text: str) -> None:
        """Print a line, and log it."""
        log.info("%s", text)
        if not self._quiet:
            self._progress.console.print(text, markup=False)

    def advance(self, label: str, done: int, total: int) -> None:
        """Move the bar called `label`; a finished bar goes away. Where there are no bars, a line now and then."""
        note = self._notes.get(label, "")
        if self._progress.disable and self._clock() - self._told >= _SELDOM:
            self._told = self._clock()
            self.say(f"{label}: {done:,} of {total:,}{', ' + note if note else ''}")
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=total, note=note)
        self._progress.update(self._bars[label], completed=done, total=total, note=note)
        if done >= total:
            self._progress.remove_task(self._bars.pop(label))

    def note(self, label: str, text: str) -> None:
        """What the bar called `label` says beside its figures from its next move on."""
        self._notes[label] = text

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def hush() -> None:
    """Keep libraries' own progress bars and notices off the terminal; ours tell what matters.

    To be called before they are imported. Whoever has set one of these variables keeps it.
    """
    wanted = {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


@contextmanager
def log_to(folder: Path, verbose: bool) -> Iterator[None]:
    """Write our log to `log.txt` in the run folder, and to the terminal when `verbose`.

    Raises UserError when there can be no such folder.
    """
    handlers: list[logging.Handler] = [_log_file(folder)]
    ours = logging.getLogger("cope_train")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if verbose:
        handlers.append(RichHandler(console=_console, show_path=False, markup=False))
    for handler in handlers:
        ours.addHandler(handler)
    try:
        yield
    except UserError as error:
        ours.error("%s", error)
        raise
    except Exception:
        ours.exception("stopped by an error of ours")
        raise
    finally:
        for handler in handlers:
            ours.removeHandler(handler)
            handler.close()


def _log_file(folder: Path) -> logging.Handler:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return logging.FileHandler(folder / "log.txt", encoding="utf-8")
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise UserError(f"{folder} cannot be the run folder: {reason}; name another folder with --out") from error
