"""What the scripts that write figures into docs/ share: where figures come from, and where they go."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

END = "<!-- end -->\n"


def made_by(command: str) -> str:
    """The command, date and machine of some figures, as Markdown."""
    return (
        f"Made by `python scripts/{command}` on {date.today()}, {os.cpu_count()} cores ({platform.machine()}), no GPU."
    )


def fill(page: Path, body: str, name: str = "figures") -> None:
    """Put figures between a page's marks (`<!-- NAME -->` and the next end), in place of those of last time."""
    begin = f"<!-- {name} -->\n"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise SystemExit(f"{page} has no mark {begin.strip()}")
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{begin}{body}\n{END}{tail}", encoding="utf-8")
