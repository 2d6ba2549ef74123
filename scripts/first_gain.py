"""The first study: what does SFT on a large model's plans do to the small planner, and to the cascade around it?

    python scripts/first_gain.py

Runs the recipe of the quickstart on more problems, once for each training seed, in one run folder: what does not
depend on the training is asked once. It does so for two *schools*: the quickstart's own short training, on fewer test
problems since its effect is large, and a longer one on more plans. Writes the tables of docs/studies/first_gain.md;
resumable like any run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from page import fill, made_by

from cope_train import verbs
from cope_train.cascade.engine import Engine
from cope_train.console import Terminal, hush, log_to
from cope_train.evaluation import stats
from cope_train.evaluation.cost import prices
from cope_train.evaluation.lines import Line, from_traces
from cope_train.evaluation.replay import NEVER, replay
from cope_train.evaluation.summary import compare
from cope_train.recipe import Recipe, load
from cope_train.recipe.strategies import STRATEGIES
from cope_train.records import Trace, Verdict, from_json
from cope_train.study import opened

RECIPE = Path("recipes/word_problems/tiny.yaml")
LARGES = {"small-goal": "small-large-goal", "small-guideline": "small-large-guideline"}  # own plan -> the large's
WANTED = ["small-single", "large", "cope", *LARGES.values(), *LARGES, *(f"{name}@planner" for name in LARGES)]
SCHOOLS = {  # the most test problems, the training problems, and what else the recipe is changed by
    "quick": (1000, 300, ()),
    "long": (4000, 3000, ("train.planner.epochs=6", "train.planner.lora={rank: 32, alpha: 64}")),
}
# Thresholds fitted to untrained cope's accuracy on the calibration split: the cheapest that reach it there, and the
# cheapest that reach it surely, since the cheapest of many is also the luckiest.
MATCHED, SURE = "cope=@planner", "cope+@planner"
_ONE_SIDED = 1.645  # standard errors of a one-sided 95 % bound
CASCADES = ("cope", "cope@planner", "cope*", "cope*@planner", MATCHED, SURE)
PAIRS = (
    *((name, "cope") for name in ("cope@planner", MATCHED, SURE, "cope*@planner")),
    *((name, "large") for name in CASCADES),
)


def recipe(changes: Sequence[str], seed: int, problems: int, calibration: int) -> Recipe:
    """The quickstart's recipe with one school's changes and one training seed, planner only, on more problems."""
    return load(
        RECIPE,
        [
            *changes,
            f"data.test.limit={problems}",
            f"data.calibration.limit={calibration}",
            f"train.planner.seed={seed}",
            "train.executor=null",
            f"evaluate.strategies=[{', '.join(WANTED)}]",
            "evaluate.adapters=[none, planner]",
        ],
    )


def traces_of(folder: Path, split: str) -> dict[str, list[Trace]]:
    """The traces of a finished run, by strategy."""
    traces: dict[str, list[Trace]] = {}
    for path in sorted((folder / "traces" / split).glob("*.jsonl")):
        for row in path.read_text(encoding="utf-8").splitlines():
            trace = from_json(Trace, row)
            traces.setdefault(trace.strategy, []).append(trace)
    return traces


def lines(study: Recipe, folder: Path) -> dict[str, Line]:
    """Every strategy of a finished run as outcomes and costs over its problems."""
    traces = traces_of(folder, "test")
    order = [trace.problem_id for trace in traces["cope"]]
    return {name: from_traces(name, rows, order, prices(study.models), "large") for name, rows in traces.items()}


def matched(fits: Mapping[str, dict]) -> dict[str, float]:
    """The cheapest thresholds that make the trained cascade as right as the untrained one, on the calibration split."""
    given = STRATEGIES["cope"].thresholds
    # A sweep holds the levels that occurred: the lowest ones not below the paper's accept the same votes.
    rows = [row for row in fits["cope"]["sweep"] if np.all(np.array(row["thresholds"]) >= list(given.values()))]
    before = min(rows, key=lambda row: row["thresholds"])
    enough = [row for row in fits["cope@planner"]["sweep"] if row["accuracy"] >= before["accuracy"]]
    best = min(enough, key=lambda row: row["cost"])
    return dict(zip(given, best["thresholds"], strict=True))


def sure(fits: Mapping[str, dict], trees: Mapping[str, Sequence[Trace]]) -> dict[str, float]:
    """The cheapest thresholds whose gain over the untrained cascade, in pairs, has a lower 95 % bound of 0 or more."""
    given = STRATEGIES["cope"].thresholds

    def rights(name: str, thresholds: Mapping[str, float]) -> np.ndarray:
        return np.array([replay(tree, thresholds).verdict is Verdict.right for tree in trees[name]], dtype=float)

    before = rights("cope", given)
    for row in sorted(fits["cope@planner"]["sweep"], key=lambda row: row["cost"]):
        thresholds = dict(zip(given, row["thresholds"], strict=True))
        gain = rights("cope@planner", thresholds) - before
        if gain.mean() - _ONE_SIDED * gain.std(ddof=1) / np.sqrt(len(gain)) >= 0:
            return thresholds
    return dict.fromkeys(given, NEVER)  # everything to the large model


def run(study: Recipe, out: Path) -> tuple[dict[str, Line], dict[str, dict]]:
    """Lines and fitted thresholds of one training seed, the matched cascade among them."""
    with Terminal() as terminal, log_to(out, verbose=False):
        verbs.run(study, out, terminal)
        found, fits = lines(study, out), json.loads((out / "calibration.json").read_text())
        fits[MATCHED] = {"thresholds": matched(fits)}
        fits[SURE] = {"thresholds": sure(fits, traces_of(out, "calibration"))}
        with opened(study, out, terminal) as at:
            engine = Engine(at.models("evaluate", at.adapters()), at.task, study.sampling)
            problems = at.problems("test")
            order = [problem.id for problem in problems]
            for name in (MATCHED, SURE):
                cascade = STRATEGIES["cope"].with_thresholds(fits[name]["thresholds"])
                traces = engine.run(cascade, problems, study.seeds[0], "planner", name)
                found[name] = from_traces(name, traces, order, prices(study.models), "large")
    return found, fits


def pooled(runs: Sequence[dict[str, Line]], name: str) -> Line:
    """One strategy over all training seeds: seeds are columns, problems stay the unit of resampling."""
    first = runs[0][name]
    mean = {key: float(np.mean([getattr(run[name], key) for run in runs])) for key in ("no_large", "large_calls")}
    share = {stage: float(np.mean([run[name].share.get(stage, 0.0) for run in runs])) for stage in first.share}
    return Line(
        name=name,
        outcomes=np.hstack([run[name].outcomes for run in runs]),
        usd=np.hstack([run[name].usd for run in runs]),
        share=share,
        small_tokens=None,
        large_tokens=None,
        seconds=None,
        **mean,
    )


def table(runs: Sequence[dict[str, Line]], study: Recipe, fits: Sequence[dict]) -> Iterator[str]:
    """The study's figures as Markdown."""
    section = study.evaluate
    yield "| small model, one greedy solution | accuracy % | difference to before, points | p | distance closed, % |"
    yield "|---|---|---|---|---|"
    yield f"| with no plan | {_accuracy(pooled(runs, 'small-single'), section.resamples)} | | | |"
    for name, other in LARGES.items():
        before, after, large = pooled(runs, name), pooled(runs, f"{name}@planner"), pooled(runs, other)
        pair = compare(after, before, section)
        kind = name.removeprefix("small-")
        closed = stats.ratio(after.outcomes - before.outcomes, large.outcomes - before.outcomes, section.resamples)
        yield f"| with its own {kind}, before | {_accuracy(before, section.resamples)} | | | 0 |"
        gain = f"{_accuracy(after, section.resamples)} | {_gap(pair)} | {_p(pair)} | {_percent(closed)}"
        yield f"| with its own {kind}, trained planner | {gain} |"
        yield f"| with the large model's {kind} | {_accuracy(large, section.resamples)} | | | 100 |"
    yield ""
    yield "| cascade | accuracy % | USD per million | resolved at stages 1 / 2 / 3, % |"
    yield "|---|---|---|---|"
    for name in ("large", *CASCADES):
        yield f"| {name} | {_row(pooled(runs, name), section.resamples)} |"
    yield ""
    yield "| cascade | against | difference, points | cost ratio | non-inferior | power |"
    yield "|---|---|---|---|---|---|"
    for name, other in PAIRS:
        yield f"| {name} | {other} | {_against(compare(pooled(runs, name), pooled(runs, other), section))} |"
    yield ""
    yield f"| training seed | own goal after, % | cope@planner, % | its stage-1 share, % | {MATCHED} | {SURE} |"
    yield "|---|---|---|---|---|---|"
    for seed, (run, fit) in enumerate(zip(runs, fits, strict=True)):
        line = run["cope@planner"]
        goal = 100 * np.nanmean(run["small-goal@planner"].outcomes)
        chosen = " | ".join(_levels(fit[name]["thresholds"]) for name in (MATCHED, SURE))
        accuracy = 100 * np.nanmean(line.outcomes)
        yield f"| {seed} | {goal:.1f} | {accuracy:.1f} | {100 * line.share['stage1']:.1f} | {chosen} |"


def _levels(thresholds: Mapping[str, float]) -> str:
    return ", ".join("never" if level > 1 else f"{level:.3g}" for level in thresholds.values())


def _row(line: Line, resamples: int) -> str:
    cost = stats.mean(line.usd * 1e6, resamples)
    share = " / ".join(f"{100 * value:.1f}" for value in line.share.values()) if len(line.share) > 1 else "-"
    usd = f"{cost.value:.1f} [{cost.interval[0]:.1f}, {cost.interval[1]:.1f}]"
    return " | ".join([_accuracy(line, resamples), usd, share])


def _against(pair: dict) -> str:
    interval = pair["usd_ratio_ci95"]
    ratio = "-" if interval is None else f"{pair['usd_ratio']:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
    answer = "yes" if pair["noninferior"] else "not shown"
    power = "-" if pair["power"] is None else f"{100 * pair['power']:.0f} %"
    return " | ".join([_gap(pair), ratio, answer, power])


def _accuracy(line: Line, resamples: int) -> str:
    return _percent(stats.accuracy(line.outcomes, resamples))


def _percent(found: stats.Estimate) -> str:
    interval = "" if found.interval is None else " [{:.1f}, {:.1f}]".format(*(100 * end for end in found.interval))
    return f"{100 * found.value:.1f}{interval}"


def _gap(pair: dict) -> str:
    low, high = (100 * end for end in pair["accuracy_difference_ci95"])
    return f"{100 * pair['accuracy_difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _p(pair: dict) -> str:
    return "< 0.001" if pair["mcnemar_p"] < 0.001 else f"{pair['mcnemar_p']:.3f}"


def main() -> None:
    """Parse the command line, run the study for every seed, write its table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=4000, help="test problems, at most [4000]")
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--train", type=int, default=3000, help="training problems, at most [3000]")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--schools", nargs="+", choices=SCHOOLS, default=list(SCHOOLS))
    parser.add_argument("--out", type=Path, default=Path("runs/first_gain"))
    parser.add_argument("--page", type=Path, default=Path("docs/studies/first_gain.md"))
    given = parser.parse_args()
    hush()
    facts = (
        f"Thresholds fitted on {given.calibration} problems of the calibration split, {given.seeds} training seeds, "
        f"one sampling seed, margin {100 * load(RECIPE).evaluate.margin:g} points."
    )
    options = f"--problems {given.problems} --calibration {given.calibration} --seeds {given.seeds}"
    options += f" --schools {' '.join(given.schools)}"
    body = [f"{facts} {made_by(f'first_gain.py {options}')}"]
    for school in given.schools:
        most, train, others = SCHOOLS[school]
        problems, changes = min(most, given.problems), (f"data.train.limit={min(train, given.train)}", *others)
        studies = [recipe(changes, seed, problems, given.calibration) for seed in range(given.seeds)]
        runs, fits = zip(*(run(study, given.out) for study in studies), strict=True)
        body += ["", f"### {school}: `{' '.join(changes)}`", "", f"n = {problems:,} test problems.", ""]
        body += table(runs, studies[0], fits)
    fill(given.page, "\n".join(body))
    print("\n".join(body))


if __name__ == "__main__":
    main()
