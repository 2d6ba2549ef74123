"""Measure the bundled pair on fresh problems: who solves how much with whose plan, and what consensus is worth.

    python scripts/measure_lab_pair.py

writes the figures of docs/lab.md: every pairing of planner, plan kind and executor, and the untrained cascade by a full
tree (every stage for every problem). `--problems 300 --pair /tmp/pair --page none` looks at another pair, quickly.
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

OFFSET = 1_000_000  # far beyond what recipes take from the test split, so that these problems are fresh
RESAMPLES = 2000
KINDS = ("goal", "guideline")
WHO = ("small", "large")


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


def measure(study: Study) -> Measured:
    """Run all pairings and the cascade's full tree; what the run's store holds is not asked again."""
    problems = study.problems("test")
    order = [problem.id for problem in problems]
    engine, known = Engine(study.models(), study.task, study.recipe.sampling), prices(study.recipe.models)
    choices = [pairing(who, None, None) for who in WHO]
    choices += [pairing(who, planner, kind) for kind in KINDS for planner in WHO for who in WHO]
    lines, lengths = {}, {}
    for strategy in choices:
        traces = engine.run(strategy, problems, seed=0)
        lines[strategy.name] = from_traces(strategy.name, traces, order, known, "large")
        lengths[strategy.name] = float(np.mean([trace.stages[0].samples[0].completion_tokens for trace in traces]))
    tree = engine.run(STRATEGIES["cope"], problems, seed=0, full_tree=True)
    cope = [replay(trace, STRATEGIES["cope"].thresholds) for trace in tree]
    lines["cope"] = from_traces("cope", cope, order, known, "large")
    lengths["guideline"] = float(np.mean([t.stages[1].usage["large"].completion_tokens for t in tree]))
    return Measured(lines, tree, problems, lengths)


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


def _one_sided(low: float, high: float) -> str:
    return f"<= {100 * high:+.0f}" if low == -1 else f">= {100 * low:+.0f}"


def _signal(tree: Sequence[Trace], stage: int) -> tuple[np.ndarray, np.ndarray]:
    stages = [trace.stages[stage] for trace in tree]
    return np.array([s.consensus for s in stages]), np.array([s.verdict is Verdict.right for s in stages])


def page(found: Measured) -> Iterator[str]:
    """Every table, as Markdown."""
    yield "| target | wanted | measured [95 %] | |"
    yield "|---|---|---|---|"
    for what, wanted, value, scale, met in targets(found):
        yield f"| {what} | {wanted} | {_figure(value, scale)} | {'met' if met else '**missed**'} |"
    yield from ("", "Accuracy of one greedy solution, %, by planner and executor:", "")
    yield "| executor | no plan | small's goal | large's goal | small's guideline | large's guideline |"
    yield "|---|---|---|---|---|---|"
    for who in WHO:
        names = ["no plan", *(f"{planner}'s {kind}" for kind in KINDS for planner in WHO)]
        cells = [_figure(stats.accuracy(found.lines[f"{who}, {name}"].outcomes, RESAMPLES), 100) for name in names]
        yield f"| {who} | {' | '.join(cells)} |"
    yield from ("", "Untrained cascade, thresholds 0.75 and 0.5:", "")
    yield "| stage | accepts, % of problems | right among them, % | right if it answered all, % |"
    yield "|---|---|---|---|"
    cope = found.lines["cope"]
    for at, (stage, share) in enumerate(cope.share.items()):
        right = 100 * np.mean([trace.stages[at].verdict is Verdict.right for trace in found.tree])
        among = f"{100 * cope.accepted[stage]['accuracy']:.1f}" if stage in cope.accepted else "-"
        yield f"| {stage} | {100 * share:.1f} | {among} | {right:.1f} |"
    yield from ("", "Accuracy by level, %:", "")
    levels = sorted({problem.level for problem in found.problems})
    yield "| | " + " | ".join(f"level {level}" for level in levels) + " |"
    yield "|---" * (len(levels) + 1) + "|"
    for name in ("small, no plan", "small, large's guideline", "cope", "large, no plan"):
        outcomes = found.lines[name].outcomes
        rows = [[at for at, problem in enumerate(found.problems) if problem.level == level] for level in levels]
        yield f"| {name} | " + " | ".join(f"{100 * outcomes[at].mean():.1f}" for at in rows) + " |"


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
    parser.add_argument("--pair", type=Path, default=lab.WEIGHTS, help="folder that holds small and large")
    parser.add_argument("--out", type=Path, default=Path("runs/lab_measured"), help="run folder")
    parser.add_argument("--page", default="docs/lab.md", help="page to write the figures into, or none")
    given = parser.parse_args()
    hush()
    changes = [f"models.{name}.path={given.pair / name}" for name in lab.NAMES]
    changes += [f"data.test.limit={given.problems}", f"data.test.offset={OFFSET}"]
    with (
        Terminal() as terminal,
        opened(load("recipes/word_problems/tiny.yaml", changes), given.out, terminal) as study,
    ):
        found = measure(study)
    facts = f"n = {given.problems} test problems beyond those of any recipe."
    body = "\n".join([f"{facts} {made_by(f'measure_lab_pair.py --problems {given.problems}')}", "", *page(found)])
    print(body)
    if given.page != "none":
        fill(Path(given.page), body)


if __name__ == "__main__":
    main()
