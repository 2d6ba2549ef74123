"""The run's log file: where there can be none, its user is told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cope_train.console import Terminal, log_to
from cope_train.errors import UserError


def test_what_is_logged_stands_in_the_run_folder(tmp_path: Path) -> None:
    with log_to(tmp_path / "new" / "run", verbose=False):
        logging.getLogger("cope_train.some").info("hello")
    assert "hello" in (tmp_path / "new" / "run" / "log.txt").read_text()


@pytest.mark.parametrize(("name", "reason"), [("file", "it is a file"), ("file/run", "Not a directory")])
def test_a_file_cannot_be_the_run_folder(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    message = f"cannot be the run folder: {reason}; name another folder with --out"
    with pytest.raises(UserError, match=message), log_to(tmp_path / name, verbose=False):
        pass


def test_where_there_are_no_bars_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture) -> None:
    now = 0.0
    with Terminal(clock=lambda: now) as terminal:
        for done in range(100):
            now += 1.0
            terminal.note("large", f"{done} failed")
            terminal.advance("large", done, 100_000)
    assert capsys.readouterr().out.splitlines() == [
        "large: 29 of 100,000, 29 failed",
        "large: 59 of 100,000, 59 failed",
        "large: 89 of 100,000, 89 failed",
    ]
