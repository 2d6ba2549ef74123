"""The verbs on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cope_train import __version__
from cope_train.console import Terminal, hush, log_to
from cope_train.errors import UserError
from cope_train.recipe import Recipe

app = typer.Typer(
    name="cope-train",
    help="Train small planners for the COPE cascade (arXiv 2506.11578) and measure what they are worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_errors = Console(stderr=True, soft_wrap=True, highlight=False)

RecipePath = Annotated[Path, typer.Argument(help="Recipe file (YAML).", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as train.planner.learning_rate=1e-4.")]
Out = Annotated[Path | None, typer.Option(help="Run folder. [default: runs/NAME]", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many problems of each split.")]
Seed = Annotated[int | None, typer.Option(min=0, help="One seed for everything, in place of the recipe's.")]
Only = Annotated[Literal["planner", "executor"] | None, typer.Option(help="Train and evaluate only this adapter.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print the log too.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cope_train {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = (
        False
    ),
) -> None:
    """Options of the program itself."""


def _load(recipe: Path, overrides: list[str] | None, limit: int | None, seed: int | None, only: str | None) -> Recipe:
    from cope_train.recipe import load
    from cope_train.recipe.options import narrowed

    return narrowed(load(recipe, overrides or []), limit, seed, only)


def _verb(name: str, summary: str) -> None:
    """One command for a verb that works on a recipe in a run folder; they differ in nothing but the verb."""

    def command(
        recipe: RecipePath,
        overrides: Overrides = None,
        out: Out = None,
        limit: Limit = None,
        seed: Seed = None,
        only: Only = None,
        quiet: QuietFlag = False,
        verbose: Verbose = False,
    ) -> None:
        from cope_train import verbs

        loaded = _load(recipe, overrides, limit, seed, only)
        folder = out or Path("runs") / loaded.name
        with Terminal(quiet) as terminal, log_to(folder, verbose):
            getattr(verbs, name)(loaded, folder, terminal)

    command.__doc__ = summary
    app.command(name)(command)


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Out = None,
    limit: Limit = None,
    seed: Seed = None,
    only: Only = None,
) -> None:
    """Say what a recipe would do, what each verb would cost, and what is missing here (exit code 5)."""
    from cope_train.steps.check import check as look

    found = look(_load(recipe, overrides, limit, seed, only), out)
    for line in found.plan:
        typer.echo(line)
    if found.missing:
        typer.echo("\nMissing on this machine:")
        for line in found.missing:
            typer.echo(f"- {line}")
        raise typer.Exit(5)
    typer.echo("\nEverything it needs is here.")


_verb("run", "Everything a recipe asks for: collect, train, evaluate, report, export.")
_verb("collect", "Collect plans from the large model and keep those that help the executor.")
_verb("train", "Train the planner's and executor's adapters on the collected plans.")
_verb("evaluate", "Run every strategy on the test split, and report.")
_verb("report", "Write report.md, report.html and report.json of an evaluated run.")
_verb("export", "Write the trained adapters as folders that others can load.")


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    problem: Annotated[str, typer.Argument(help="Problem id, as in the report.")],
    strategy: Annotated[str | None, typer.Option(help="Only this strategy, such as cope@planner.")] = None,
) -> None:
    """Show one problem's whole trace: plans, samples, votes, gates."""
    from cope_train.steps.show import lines
    from cope_train.steps.show import show as find

    for trace in find(run, problem, strategy):
        for line in lines(trace):
            typer.echo(line)
        typer.echo()


@app.command()
def store(
    run: Annotated[Path, typer.Argument(help="Run folder, or a store's file.")],
    export: Annotated[Path | None, typer.Option(help="Write completions here, as jsonl for `recorded` models.")] = None,
    model: Annotated[str | None, typer.Option(help="Export this model's completions only.")] = None,
) -> None:
    """Say what a store holds and what it cost, or export its completions."""
    from cope_train.steps import store as look

    opened = look.find(run)
    try:
        if export:
            typer.echo(f"{look.export(opened, export, model):,} completions written to {export}")
        else:
            for line in look.lines(opened):
                typer.echo(line)
    finally:
        opened.close()


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from cope_train.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def recipes() -> None:
    """List the shipped recipes with what each shows and needs."""
    from cope_train.recipe import shipped

    for recipe in shipped():
        typer.echo(f"{recipe.path}\n  shows: {recipe.shows}\n  needs: {recipe.needs}\n  run:   {recipe.run}\n")


def main() -> None:
    """Run the command line; errors of the user's are one message and an exit code, never a traceback."""
    hush()
    try:
        app()
    except UserError as error:
        _errors.print(f"error: {error}", style="red", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _errors.print("stopped; the same command goes on from here")
        sys.exit(130)
