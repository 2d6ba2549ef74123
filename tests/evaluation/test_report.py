"""The report's files: whole, self-contained, and unbroken by what stands in the problems."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cope_train.evaluation import report
from cope_train.evaluation.examples import pick
from cope_train.evaluation.lines import from_traces
from cope_train.evaluation.summary import summarise
from cope_train.recipe.schema import Evaluate
from cope_train.records import Problem
from tests.evaluation.made import FAILURE, PRICES, RIGHT, WRONG, stage, trace, used

NASTY = 'Is <b>a</b> | b & "c" < d <script>alert(1)</script>?'
PROBLEMS = [Problem(f"p{i}", NASTY, f"{i} & <i>", level="a | <b>" if i else None) for i in range(6)]
ORDER = [problem.id for problem in PROBLEMS]
FIT = {
    "thresholds": {"stage1": 0.625, "stage2": 1.01},
    "accuracy": 0.5,
    "large_accuracy": 0.75,
    "cost": 12.0,
    "unit": "USD per million problems",
    "problems": 4,
    "rule": "cheapest",
}
SWEEP = [{"thresholds": [t], "accuracy": a, "cost": c} for t, a, c in ((1.01, 0.7, 40.0), (0.5, 0.4, 5.0))]


LEDGER = {"calls": 3, "failed": 0, "usd": 0.5, "unpriced": 1, "compute_usd": 0.25, "prices": {"large": "the recipe"}}
LEDGER |= {"balanced": True}


def content(known: dict, verdicts: dict[str, list]) -> tuple[dict[str, Any], list[dict]]:
    traces = {}
    for name, row in verdicts.items():
        first = stage("stage1", WRONG, 0.5, {"small": used(9)}, accepted=False)
        plans = {"goal": "say | <u>\nwhat"}
        ends = [stage("stage2", v, usage={"large": used()}, text=f"{NASTY} =1", plans=plans) for v in row]
        traces[name] = [trace(p, first, end, strategy=name) for p, end in zip(ORDER, ends, strict=True)]
    lines = [from_traces(name, rows, ORDER, known, "large") for name, rows in traces.items()]
    levels = {problem.id: problem.level for problem in PROBLEMS}
    summary = summarise(lines, Evaluate(resamples=100), ORDER, [0], ["cope", "large"], levels)
    more = {
        "name": "made-up",
        "task": "math",
        "cascade": "cope",
        "thresholds": "paper",
        "margin": 0.02,
        "calibration": {"cope": FIT},
        "ledger": LEDGER,
    }
    return summary | more, pick(traces["cope"], traces["cope@planner"], PROBLEMS)


def write(folder: Path, known: dict, **verdicts: list) -> Path:
    names = {name.replace("_at_", "@"): row for name, row in verdicts.items()}
    facts, examples = content(known, {"large": [RIGHT] * 6} | names)
    report.write(folder, facts, {"cope": SWEEP}, examples, ["a note & <em>more</em>"])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    verdicts = {"cope": [RIGHT, WRONG, WRONG, RIGHT, WRONG, RIGHT], "cope_at_planner": [RIGHT] * 5 + [WRONG]}
    return write(tmp_path_factory.mktemp("report"), PRICES, **verdicts)


class Page(HTMLParser):
    """What a browser would make of the page: tags, what they point at, and the text of each."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pointers: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.pointers += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def test_the_page_is_self_contained_and_well_formed(folder: Path) -> None:
    page = Page(folder / "report.html")
    assert page.open == []
    assert len(page.pointers) == 2  # the two plots
    assert all(pointer.startswith("data:image/png;base64,") for pointer in page.pointers)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in (folder / "report.html").read_text()


def test_texts_of_problems_and_models_are_escaped_in_the_page(folder: Path) -> None:
    page = Page(folder / "report.html")
    assert page.texts.count(NASTY) == 6  # as a reader sees it: one for each example
    assert page.texts.count(f"{NASTY} =1") == 12  # both solutions of each
    assert "3 & <i>" in page.texts
    assert ": say | <u>\nwhat" in page.texts
    assert "level a | <b> (n = 5)" in page.texts
    assert "a note & <em>more</em>" in page.texts
    assert not {"u", "em"} & set(page.tags)


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, split where Markdown does."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", row)[1:-1] for row in block.splitlines()] for block in blocks]


def test_tables_of_the_markdown_are_whole(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert not re.search(r"^- .*\n[^-\s]", text, re.MULTILINE)  # a list ends before what comes after it
    found = tables(text)
    assert len(found) == 4 == text.count("\n|---|")
    for table in found:
        assert len({len(row) for row in table}) == 1, table[0]
    strategies, comparisons, levels, calibration = found
    assert [row[0].strip() for row in strategies[2:]] == ["large", "cope", "cope@planner"]
    assert [(row[0].strip(), row[1].strip()) for row in comparisons[2:]] == [
        ("large", "cope"),
        ("cope@planner", "cope"),
        ("cope", "large"),
        ("cope@planner", "large"),
    ]
    assert levels[0][1].strip() == r"level a \| <b> (n = 5)"
    assert calibration[2][1].strip() == "stage1 0.625, stage2 never"
    assert NASTY in text


def test_figures_of_the_markdown_are_those_of_the_report(folder: Path) -> None:
    strategies = tables((folder / "report.md").read_text())[0]
    cell = {row[0].strip(): [value.strip() for value in row] for row in strategies[2:]}["cope"]
    # 10 prompt and 5 completion tokens of the large model, at 0.15 and 0.60 USD per million.
    assert cell[:4] == ["cope", "50.0", "18.8 to 81.2", "4.5"]
    assert cell[5:] == ["0 / 100", "1.00", "15", "15", "0.00", "0 / 0"]


def test_the_report_is_json_without_nan(folder: Path) -> None:
    found = json.loads((folder / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["strategies"]["cope"]["accuracy"] == 0.5
    assert found["ledger"] == LEDGER


def test_a_figure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    facts, examples = content(PRICES, {name: [RIGHT] * 6 for name in ("large", "cope", "cope@planner")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write(tmp_path, facts | {"margin": float("nan")}, {}, examples, [])


def test_the_plots_are_pictures(folder: Path) -> None:
    for name in ("frontier", "stages"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_report_is_the_same_file(folder: Path, tmp_path: Path) -> None:
    verdicts = {"cope": [RIGHT, WRONG, WRONG, RIGHT, WRONG, RIGHT], "cope_at_planner": [RIGHT] * 5 + [WRONG]}
    again = write(tmp_path, PRICES, **verdicts)
    for name in ("report.json", "report.md", "report.html"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_report_of_failures_and_unknown_costs(tmp_path: Path) -> None:
    write(tmp_path, PRICES | {"large": None}, cope=[FAILURE] * 6, cope_at_planner=[FAILURE] * 6)
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["strategies"]["cope"]["accuracy"] is None
    text = (tmp_path / "report.md").read_text()
    assert "Untrained cope: no problem could be answered." in text
    assert "100.0 % right" in text
    assert "cost unknown" in text
    assert "Before and after" not in text
    assert all(len({len(row) for row in table}) == 1 for table in tables(text))
    assert Page(tmp_path / "report.html").open == []


def test_a_report_where_nobody_answered(tmp_path: Path) -> None:
    nothing = {name: [FAILURE] * 6 for name in ("large", "cope", "cope_at_planner")}
    write(tmp_path, PRICES, **nothing)
    assert "The large model alone: no problem could be answered." in (tmp_path / "report.md").read_text()
