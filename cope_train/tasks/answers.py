"""Reading the final answer out of a solution, and writing equal answers alike.

Conventions: units, percent signs, currency and degree signs are decoration (MATH's own: "50\\%" is 50); a comma
between digits in groups of three is a thousands separator.
"""

from __future__ import annotations

import re

_MARKS = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator marks
_BOX = re.compile(r"\\f?boxed\s*")
_HASHES = re.compile(r"####\s*(.+)")
_IS = r"is(?![a-z])(?!\s+not\s+\$?-?\d)"
_SAYS = re.compile(rf"(?:\banswer\s*(?:{_IS}|:|=)|^\s*A\s*:)\s*:?\s*(.+)", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?|(?<![\w.])-?\.\d+")
_FORMULA = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)|\*\*(.+?)\*\*")
# Words up to a number or formula. Words that are mathematics themselves are part of the answer: negative 5.
_PROSE = re.compile(
    r"(?!.*?\b(?:a?(?:sin|cos|tan)|cot|sec|csc|log|ln|exp|pi|sqrt|root|minus|negative|plus|half|third|twice|than)\b)"
    r"(?=.*?[A-Za-z]{2})[^\d$\\*+=/^_<>|(\[{-]*[\s:]\Z",
    re.IGNORECASE,
)
_MINUS = "\u2212"  # typeset text has it for "-"


def extract(text: str) -> str | None:
    """The final answer: what is boxed last, else what follows `####`, or "answer is", else the last number."""
    text = _MARKS.sub("", text).replace(_MINUS, "-")
    for found in (_boxed(text), _last(_HASHES, text), _spoken(text), _last_number(text)):
        if found:
            return found
    return None


def _boxed(text: str) -> str | None:
    """Content of the last finished box; braces may nest, and a single token may stand without them."""
    for box in reversed(list(_BOX.finditer(text))):
        rest = text[box.end() :]
        content = _braced(rest) if rest.startswith("{") else re.match(r"[^\s$]+", rest)
        if isinstance(content, re.Match):
            content = content.group().rstrip(".,")
        if content and content.strip():
            return content.strip()
    return None


def _braced(text: str) -> str | None:
    depth = 0
    escaped = False
    for position, letter in enumerate(text):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return text[1:position]
    return None


def _last(pattern: re.Pattern, text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1].strip() or None if found else None


def _spoken(text: str) -> str | None:
    """What follows the last "answer is" or "A:": the number or formula that starts there, else the rest of its line."""
    said = _last(_SAYS, text)
    if said is None:
        return None
    said = _without_prose(said)
    formula = _FORMULA.match(said)
    if formula:
        return next(group for group in formula.groups() if group).strip()
    number = _NUMBER.match(said)
    if number and not re.match(r"\s*[-+*/^=(\\]", said[number.end() :]):
        return _plain(number.group())
    return said.rstrip(" .") or None


def _without_prose(said: str) -> str:
    """What was said from its first number or formula on, if only words stand before that."""
    starts = [found.start() for found in (_NUMBER.search(said), _FORMULA.search(said)) if found]
    return said[min(starts) :] if starts and _PROSE.match(said[: min(starts)]) else said


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return _plain(found[-1]) if found else None


def _plain(number: str) -> str:
    return number.replace("$", "").replace(",", "").replace(" ", "")


_UNITS = (
    r"(?:square|cubic|sq\.?|cu\.?)?\s*(?:centimet(?:er|re)s?|millimet(?:er|re)s?|kilomet(?:er|re)s?|met(?:er|re)s?|"
    r"inch(?:es)?|foot|feet|yards?|miles?|cm|mm|km|kg|ft|mph|units?|degrees?|dollars?|cents?|hours?|minutes?|seconds?|"
    r"days?|weeks?|months?|years?|percent|pounds?|ounces?|grams?|kilograms?|liters?|litres?|ways|square units|"
    r"people|students|apples|points?|radians?|m|g|s|h)"
)
_REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\\(?:left|right|displaystyle|textstyle|big|Big|bigg|Bigg|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[!,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dt]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:mbox|textbf|textit|textrm|mathrm|mathbf|operatorname|hbox)\s*\{", r"\\text{"),
        (r"\\(?:boldsymbol|bm)\s*\{([^{}]*)\}", r"\1"),
        (r"\\(?:le|leqslant)(?![A-Za-z])", r"\\leq"),
        (r"\\(?:ge|geqslant)(?![A-Za-z])", r"\\geq"),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|°|\\degree(?![A-Za-z])", ""),
        (r"\\?%|\\?\$|€|£", ""),
        (r"(?<=\d)\{,\}(?=\d{3})", ""),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*\{([^{}]*)\}\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*(\d+|[a-z])(?![A-Za-z])", r"\\sqrt{\1}"),
        (r"\.\s*$", ""),
        (r"^\s*\\text\s*\{([^{}]*)\}\s*$", r"\1"),
        (r"\s*\\text\s*\{\s*(?:or|and)\s*\}\s*|\s+(?:or|and)\s+", ", "),
        (r"\\text\s*\{\s*" + _UNITS + r"\s*\}\s*(?:\^\s*\{?[23]\}?)?\s*$", ""),
        (r"(?<=[\d}])\s*" + _UNITS + r"\.?\s*(?:\^\s*\{?[23]\}?)?\s*$", ""),
        (r"^\s*[A-Za-z](?:\s*\([A-Za-z]\))?\s*=\s*(?!.*=)", ""),
        (r"^\s*[A-Za-z]\s*(?:\\in(?![A-Za-z])|∈)\s*", ""),
        (r"^\s*\(\s*([A-Za-z])\s*\)\s*$", r"\1"),
        (r"\s+", " "),
    )
]
_THOUSANDS = re.compile(r"(?<=\d),(?:\\!|\s)?(?=\d{3}(?:\D|$))(?<!\d{4},)")
_TUPLE = re.compile(r"^[\(\[\\{]")


def normal(answer: str) -> str:
    """An answer in one way of writing, for comparing as text and for handing on to a parser of mathematics."""
    text = answer.replace(_MINUS, "-").strip().strip("$").strip()
    # In a tuple, an interval or a set a comma separates; elsewhere one between groups of three digits does not.
    listed = bool(_TUPLE.match(text)) or bool(re.search(r",\s*\d{1,2}(?!\d)|,\s+\d", text))
    if not listed:
        text = _THOUSANDS.sub("", text)
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return text.strip()
