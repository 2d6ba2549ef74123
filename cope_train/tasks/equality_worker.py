"""The process behind `equality.py`: reads pairs as JSON lines, writes equal, different or error."""

from __future__ import annotations

import json
import logging
import sys


def main() -> None:
    """Answer pairs until standard input ends."""
    logging.disable(logging.WARNING)  # Math-Verify warns that time-outs are off; the parent process keeps the time
    from math_verify import parse, verify
    from sympy import Basic, I, nan, zoo

    def read(text: str) -> list:
        """What Math-Verify makes of a text; an i that is the only letter is the imaginary unit."""
        values = parse(f"${text}$", parsing_timeout=None, raise_on_error=True)
        return [_with_unit(value) if isinstance(value, Basic) else value for value in values]

    def _with_unit(value: Basic) -> Basic:
        letters = value.free_symbols
        return value.subs(letters.pop(), I) if {letter.name for letter in letters} == {"i"} else value

    def undefined(values: list) -> bool:
        return any(isinstance(value, Basic) and value.has(zoo, nan) for value in values)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        try:
            one, two = (read(text) for text in json.loads(line))
            # Math-Verify raises at a division by zero; one on one side only is no number that the other could be.
            # The relation is not quite symmetric there, and a pair has no order here.
            same = undefined(one) == undefined(two) and any(
                verify(gold, answer, timeout_seconds=None, raise_on_error=True)
                for gold, answer in ((one, two), (two, one))
            )
            verdict = "equal" if same else "different"
        except Exception:  # whatever breaks on what a model wrote is no verdict on the model
            verdict = "error"
        sys.stdout.write(verdict + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
