"""Whether two answers are the same: by text and exact number first, then by Math-Verify in a process of its own.

Math-Verify (github.com/huggingface/Math-Verify) can run for ever on what a model writes, its time-outs work on a main
thread only, and its errors look like "different". So it runs in a worker that can be killed, and there are three
verdicts. Every pair is asked once.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
from fractions import Fraction
from typing import Literal

from cope_train.tasks.answers import normal

Same = Literal["equal", "different", "error"]
_LONGEST = 500  # characters; what is longer is compared as text only
_START = 120.0  # seconds a worker may take to import what it needs
_NUMBER = re.compile(r"([-+]?)(\d+(?:\.\d*)?|\.\d+)(?:[eE]([-+]?\d{1,3}))?")
_RATIO = re.compile(r"([-+]?)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|(\d+)\s*/\s*(\d+))")
_MIXED = re.compile(r"([-+]?)(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|\s(\d+)/(\d+))")
_WORDS = re.compile(r"(?:[A-Za-z]{3,}|\\text\s*\{[^{}]*\})(?:[\s'-]+(?:[A-Za-z]+|\\text\s*\{[^{}]*\}))*")
_BASE = re.compile(r"\d_\{?(\w+)\}?$")
_BRACKETS = {"(": "(", "[": "[", "\\{": "{"}


class Equality:
    """Compares answers. `timeout` is in seconds for one pair; a pair that takes longer is an error."""

    def __init__(self, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._known: dict[tuple[str, str], Same] = {}
        self._worker: _Worker | None = None

    def same(self, one: str, two: str) -> Same:
        """The verdict on a pair, whichever way round."""
        a, b = sorted((normal(one), normal(two)))
        if (a, b) not in self._known:
            self._known[a, b] = _exact(a, b) or self._ask(a, b)
        return self._known[a, b]

    def _ask(self, a: str, b: str) -> Same:
        if self._worker is None:
            self._worker = _Worker()
        verdict = self._worker.ask(a, b, self._timeout)
        if verdict is None:  # it took too long, or died
            self.close()
            return "error"
        return verdict

    def close(self) -> None:
        """Kill the worker, if there is one."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


class _Worker:
    """`python -m cope_train.tasks.equality_worker`, spoken to in lines of JSON."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "cope_train.tasks.equality_worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        if self._next(_START) != "ready":
            self.kill()
            raise RuntimeError("the process that compares answers did not start; is math-verify installed?")

    def ask(self, a: str, b: str, timeout: float) -> Same | None:
        """The worker's verdict, None when there is none in time."""
        try:
            self._process.stdin.write(json.dumps([a, b]) + "\n")
        except OSError:
            return None
        return self._next(timeout)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what was not sent yet goes nowhere
            self._process.stdin.close()

    def _next(self, timeout: float) -> str | None:
        try:
            return self._lines.get(timeout=timeout) or None
        except queue.Empty:
            return None

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")  # the process has ended


def _exact(a: str, b: str) -> Same | None:
    """A verdict that needs no algebra, or None."""
    if a.replace(" ", "") == b.replace(" ", ""):
        return "equal"
    one, two = _number(a), _number(b)
    if one is not None and two is not None:
        return "equal" if one == two else "different"
    if _WORDS.fullmatch(a) or _WORDS.fullmatch(b):
        # A parser of formulas takes a word for a product of its letters, and east for seat.
        return "equal" if _spelt(a) == _spelt(b) else "different"
    if len(a) > _LONGEST or len(b) > _LONGEST or not a or not b:
        return "different"
    bases = [found[1] for found in (_BASE.search(a), _BASE.search(b)) if found]
    if len(bases) == 2 and bases[0] != bases[1]:
        return "different"  # the parser drops subscripts, so 10_2 would be 10_3
    if _kind(a) != _kind(b) and _kind(a) and _kind(b):
        return "different"
    return None


def _number(text: str) -> Fraction | None:
    text = text.replace(" \\frac", "\\frac")
    if found := _NUMBER.fullmatch(text):
        sign, digits, exponent = found.groups()
        return Fraction(f"{sign}{digits}e{exponent or 0}")
    if (found := _RATIO.fullmatch(text)) and (parts := [part for part in found.groups()[1:] if part]):
        value = Fraction(int(parts[0]), int(parts[1])) if int(parts[1]) else None
        return -value if value is not None and found[1] == "-" else value
    if found := _MIXED.fullmatch(text):
        whole, top, bottom = (int(part) for part in found.groups()[1:] if part)
        if bottom:
            value = whole + Fraction(top, bottom)
            return -value if found[1] == "-" else value
    return None


def _spelt(text: str) -> str:
    return re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip().lower().replace("-", " ")


def _kind(text: str) -> str | None:
    """Shape of a bracketed list, brackets and all: a set is no tuple, a closed interval no open one."""
    if "," not in text or "\\cup" in text or "\\cap" in text:
        return None
    start = next((name for bracket, name in _BRACKETS.items() if text.startswith(bracket)), None)
    end = text[-1] if text[-1] in ")]}" else None
    return start + end if start and end else None
