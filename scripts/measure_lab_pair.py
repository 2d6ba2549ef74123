"""Measure the bundled models on fresh problems: who solves how much with whose plan, and what consensus is worth.

    python scripts/measure_lab_pair.py

writes the figures of docs/lab.md and of the models' card: every pairing of planner, plan kind and executor, and the
untrained cascade by a full tree (every stage for every problem); then, on a quarter as many problems, the harder
world. `--problems 300 --pair FOLDER --pages` looks at another pair, quickly, and writes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from page import fill, made_by

from cope_train import lab
from cope_train.cascade.engine import Engine
from cope_train.console import Terminal, hush
from cope_train.evaluation import stats
from cope_train.evaluation.cost import prices
from cope_train.evaluation.lines import Line, from_traces
from cope_train.evaluation.replay import replay
from cope_train.recipe import load
from cope_train.recipe.strategies import STRATEGIES, Plan, Stage, Strategy
from cope_train.records import Problem, Trace, Verdict
from cope_train.study import Study, opened

RECIPE = "recipes/word_problems/tiny.yaml"
PAGES = [Path("docs/lab.md"), lab.WEIGHTS / "README.md"]
OFFSET = 1_000_000  # far beyond what recipes take from the test split, so that these problems are fresh
RESAMPLES = 2000
KINDS = ("goal", "guideline")
WHO = lab.NAMES
MEGABYTES = 12  # that the weights may take in the package


def pairing(executor: str, planner: str | None, kind: str | None) -> Strategy:
    """One greedy solution, with one plan drawn at the paper's temperature or with none."""
    name = f"{executor}, {planner}'s {kind}" if planner else f"{executor}, no plan"
    plan = Plan(planner, kind) if planner else None
    return Strategy(name, "", (Stage("solve", executor, plan=plan, given=(kind,) if kind else ()),))


@dataclass(frozen=True)
class Measured:
    """What was measured: a line for each pairing and for the cascade, the full tree, and the tokens of texts."""

    lines: Mapping[str, Line]
    tree: Sequence[Trace]
    problems: Sequence[Problem]
    lengths: Mapping[str, float]
    size: float  # of the weights, megabytes


def everything() -> list[Strategy]:
    """Every pairing of executor, planner and kind of plan, none included."""
    alone = [pairing(who, None, None) for who in WHO]
    return alone + [pairing(who, planner, kind) for kind in KINDS for planner in WHO for who in WHO]


def essentials() -> list[Strategy]:
    """Each model alone, and what the large model's guideline does for the small one."""
    return [*(pairing(who, None, None) for who in WHO), pairing("small", "large", "guideline")]


def measure(study: Study, choices: Sequence[Strategy]) -> Measured:
    """Run some pairings and the cascade's full tree; what the run's store holds is not asked again."""
    problems = study.problems("test")
    order = [problem.id for problem in problems]
    engine, known = Engine(study.models("evaluate"), study.task, study.recipe.sampling), prices(study.recipe.models)
    lines, lengths = {}, {}
    for strategy in choices:
        traces = engine.run(strategy, problems, seed=0)
        lines[strategy.name] = from_traces(strategy.name, traces, order, known, "large")
        lengths[strategy.name] = float(np.mean([trace.stages[0].samples[0].completion_tokens for trace in traces]))
    tree = engine.run(STRATEGIES["cope"], problems, seed=0, full_tree=True)
    cope = [replay(trace, STRATEGIES["cope"].thresholds) for trace in tree]
    lines["cope"] = from_traces("cope", cope, order, known, "large")
    lengths["guideline"] = float(np.mean([t.stages[1].usage["large"].completion_tokens for t in tree]))
    folders = [Path(study.recipe.models[who].path) for who in WHO]
    size = sum((folder / "model.safetensors").stat().st_size for folder in folders) / 1e6
    return Measured(lines, tree, problems, lengths, size)


def targets(found: Measured) -> Iterator[tuple[str, str, stats.Estimate, float, bool]]:
    """(what, target, figure, scale, met) for everything that the pair is meant to be."""
    lines = found.lines
    small, large = lines["small, no plan"], lines["large, no plan"]

    def gap(name: str, base: Line) -> stats.Estimate:
        return stats.difference(lines[name].outcomes, base.outcomes, RESAMPLES)

    for line, low, high in ((large, 0.85, 0.95), (small, 0.3, 0.5)):
        value = stats.accuracy(line.outcomes, RESAMPLES)
        yield f"{line.name.split(',')[0]} alone", f"{low:.0%} to {high:.0%}", value, 100, low <= value.value <= high
    for name, base, low, high in (
        ("small, large's guideline", small, 0.2, 1.0),
        ("small, small's guideline", small, -1.0, 0.02),
        ("small, small's goal", small, 0.02, 0.08),
        ("large, small's guideline", large, -1.0, -0.05),
        ("large, large's guideline", large, 0.0, 1.0),
        ("cope", large, -0.02, 1.0),
    ):
        value = gap(name, base)
        wanted = f"{100 * low:+.0f} to {100 * high:+.0f}" if abs(low) < 1 > high else _one_sided(low, high)
        yield f"{name}, less {base.name.split(',')[0]} alone", wanted, value, 100, low <= value.value <= high
    for at in (0, 1):
        value = stats.auroc(*_signal(found.tree, at))
        yield f"AUROC of the consensus, stage {at + 1}", ">= 0.75", value, 1, (value.value or 0) >= 0.75
    value = stats.ratio(lines["cope"].usd, large.usd, RESAMPLES)
    yield "cost of cope over large", "40 % to 65 %", value, 100, 0.4 <= (value.value or 0) <= 0.65
    value = found.lengths["large, no plan"] / found.lengths["guideline"]
    yield "length of a solution over a guideline's", ">= 3", stats.Estimate(value, None), 1, value >= 3
    yield "weights of all models, MB", f"<= {MEGABYTES}", stats.Estimate(found.size, None), 1, found.size <= MEGABYTES


def _one_sided(low: float, high: float) -> str:
    return f"<= {100 * high:+.0f}" if low == -1 else f">= {100 * low:+.0f}"


def _signal(tree: Sequence[Trace], stage: int) -> tuple[np.ndarray, np.ndarray]:
    stages = [trace.stages[stage] for trace in tree]
    return np.array([s.consensus for s in stages]), np.array([s.verdict is Verdict.right for s in stages])


def page(found: Measured) -> Iterator[str]:
    """Every table of the standard world, as Markdown."""
    yield "| target | wanted | measured [95 %] | |"
    yield "|---|---|---|---|"
    for what, wanted, value, scale, met in targets(found):
        yield f"| {what} | {wanted} | {_figure(value, scale)} | {'met' if met else '**missed**'} |"
    yield from ("", "Accuracy of one greedy solution, %, by executor (rows), planner and kind of plan:", "")
    names = ["no plan", *(f"{planner}'s {kind}" for kind in KINDS for planner in WHO)]
    yield f"| executor | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for who in WHO:
        cells = [_figure(stats.accuracy(found.lines[f"{who}, {name}"].outcomes, RESAMPLES), 100) for name in names]
        yield f"| {who} | {' | '.join(cells)} |"
    yield from ("", "Untrained cascade, thresholds 0.75 and 0.5:", "", *_cascade(found))
    yield from ("", "Accuracy by level, %:", "", *_levels(found))


def _cascade(found: Measured) -> Iterator[str]:
    yield "| stage | accepts, % of problems | right among them, % | right if it answered all, % |"
    yield "|---|---|---|---|"
    cope = found.lines["cope"]
    for at, (stage, share) in enumerate(cope.share.items()):
        right = 100 * np.mean([trace.stages[at].verdict is Verdict.right for trace in found.tree])
        among = f"{100 * cope.accepted[stage]['accuracy']:.1f}" if stage in cope.accepted else "-"
        yield f"| {stage} | {100 * share:.1f} | {among} | {right:.1f} |"


def _levels(found: Measured) -> Iterator[str]:
    levels = sorted({problem.level for problem in found.problems})
    rows = {level: [at for at, problem in enumerate(found.problems) if problem.level == level] for level in levels}
    yield "| | " + " | ".join(f"level {level} (n = {len(at)})" for level, at in rows.items()) + " |"
    yield "|---" * (len(levels) + 1) + "|"
    for name in (*(f"{who}, no plan" for who in WHO), "small, large's guideline", "cope"):
        cells = " | ".join(f"{100 * np.mean(found.lines[name].outcomes[at]):.1f}" for at in rows.values())
        yield f"| {name} | {cells} |"


def harder(found: Measured) -> Iterator[str]:
    """The harder world in one table, as Markdown."""
    yield f"In the harder world (n = {len(found.problems)}):"
    yield from ("", "| | accuracy % | cost over large, % |", "|---|---|---|")
    large = found.lines["large, no plan"].usd
    for name, line in found.lines.items():
        cost = _figure(stats.ratio(line.usd, large, RESAMPLES), 100)
        yield f"| {name} | {_figure(stats.accuracy(line.outcomes, RESAMPLES), 100)} | {cost} |"


def _figure(value: stats.Estimate, scale: float) -> str:
    if value.value is None:
        return "-"
    digits = 1 if scale == 100 else 3
    interval = (
        ""
        if value.interval is None
        else " [{}]".format(", ".join(f"{scale * end:.{digits}f}" for end in value.interval))
    )
    return f"{scale * value.value:.{digits}f}{interval}"


def main() -> None:
    """Parse the command line, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--pair", type=Path, default=lab.WEIGHTS, help="folder that holds the models")
    parser.add_argument("--out", type=Path, default=Path("runs/lab_measured"), help="run folder")
    parser.add_argument("--pages", type=Path, nargs="*", default=PAGES, help="pages to write the figures into")
    given = parser.parse_args()
    hush()
    found = run(given.pair, given.out, given.problems, "standard", everything())
    rest = run(given.pair, given.out / "harder", max(1, given.problems // 4), "harder", essentials())
    facts = f"n = {given.problems} test problems beyond those of any recipe."
    made = made_by(f"measure_lab_pair.py --problems {given.problems}")
    body = "\n".join([f"{facts} {made}", "", *page(found), "", *harder(rest)])
    print(body)
    for path in given.pages:
        fill(path, body)


def run(pair: Path, out: Path, problems: int, setting: str, choices: Sequence[Strategy]) -> Measured:
    """Measure the models of a folder on fresh problems of one setting of the world, in a run folder."""
    changes = [f"models.{name}={{backend: local, path: {pair / name}}}" for name in WHO]
    changes += ["models.large.price={input: 0.15, output: 0.60}"]
    changes += [
        f"data.test.{key}={value}" for key, value in (("limit", problems), ("offset", OFFSET), ("name", setting))
    ]
    with Terminal() as terminal, opened(load(RECIPE, changes), out, terminal) as study:
        return measure(study, choices)


if __name__ == "__main__":
    main()
