"""Each verb of the command line as a typed Python function.

Every function opens the recipe in its run folder (`out`, or `runs/NAME`), does what is not done yet and returns the
folder. They may be called in any order that makes sense, again and again: what is up to date is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cope_train.recipe import Recipe
from cope_train.records import Task
from cope_train.study import Reporter, opened

Tasks = Mapping[str, Task]


def collect(
    recipe: Recipe, out: Path | None = None, reporter: Reporter | None = None, tasks: Tasks | None = None
) -> Path:
    """Collect plans on the training split and keep those that help the executor."""
    return _walk(("collect",), recipe, out, reporter, tasks)


def train(
    recipe: Recipe, out: Path | None = None, reporter: Reporter | None = None, tasks: Tasks | None = None
) -> Path:
    """Train the adapters of the recipe on the collected plans."""
    return _walk(("train",), recipe, out, reporter, tasks)


def evaluate(
    recipe: Recipe, out: Path | None = None, reporter: Reporter | None = None, tasks: Tasks | None = None
) -> Path:
    """Run all strategies on the test split, then write the report."""
    return _walk(("evaluate", "report"), recipe, out, reporter, tasks)


def report(
    recipe: Recipe, out: Path | None = None, reporter: Reporter | None = None, tasks: Tasks | None = None
) -> Path:
    """Write the report of the traces that are there."""
    return _walk(("report",), recipe, out, reporter, tasks)


def export(
    recipe: Recipe, out: Path | None = None, reporter: Reporter | None = None, tasks: Tasks | None = None
) -> Path:
    """Write the trained adapters as folders that others can load."""
    return _walk(("export",), recipe, out, reporter, tasks)


def run(recipe: Recipe, out: Path | None = None, reporter: Reporter | None = None, tasks: Tasks | None = None) -> Path:
    """Everything the recipe asks for, in order: collect, train, evaluate, report, export."""
    collects = ("collect",) if recipe.plans else ()
    trains, exports = (("train",), ("export",)) if recipe.train else ((), ())
    return _walk((*collects, *trains, "evaluate", "report", *exports), recipe, out, reporter, tasks)


def _walk(
    verbs: tuple[str, ...], recipe: Recipe, out: Path | None, reporter: Reporter | None, tasks: Tasks | None
) -> Path:
    from importlib import import_module

    with opened(recipe, out, reporter, tasks) as study:
        for verb in verbs:
            getattr(import_module(f"cope_train.steps.{verb}"), verb)(study)
        return study.run.path
