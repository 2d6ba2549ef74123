"""A recipe opened in its run folder: problems, task, store and models, each made when first needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cope_train import prompts
from cope_train.errors import UserError
from cope_train.models import Models
from cope_train.models.budget import Budget
from cope_train.models.store import Store
from cope_train.recipe import Recipe, prices
from cope_train.recipe.model_specs import LocalModel
from cope_train.recipe.schema import Limits, Train
from cope_train.records import Problem, Task
from cope_train.rundir import RunDir, hash_of

log = logging.getLogger(__name__)
# Fields of a model that change how fast it answers, never what it says.
_SPEED_ONLY = {"batch_tokens", "concurrency", "timeout", "retries", "device", "device_map", "path", "usd_per_hour"}
_SPEED_ONLY |= {"requests_per_minute", "tokens_per_minute", "api_key_env"}


class Reporter(Protocol):
    """Where a verb tells how it is getting on."""

    def say(self, text: str) -> None:
        """A line for the user."""
        ...

    def advance(self, label: str, done: int, total: int) -> None:
        """Progress of the work called `label`."""
        ...

    def note(self, label: str, text: str) -> None:
        """What to show beside that progress: cost so far and to go, failures."""
        ...


class Quiet:
    """Tells the log only."""

    def say(self, text: str) -> None:
        """Log it."""
        log.info("%s", text)

    def advance(self, label: str, done: int, total: int) -> None:
        """Nothing: progress is for people who watch."""

    def note(self, label: str, text: str) -> None:
        """Nothing either."""


class Study:
    """One recipe in one run folder, locked while it is open."""

    def __init__(
        self, recipe: Recipe, run: RunDir, reporter: Reporter | None = None, tasks: Mapping[str, Task] | None = None
    ) -> None:
        """`tasks` puts a user's own task in place of the one the recipe names."""
        self.recipe = recipe
        self.run = run
        self.reporter = reporter or Quiet()
        self._tasks = tasks or {}

    @cached_property
    def prompts(self) -> prompts.PromptSet:
        """The task's prompts, with the recipe's own in place."""
        return prompts.load(self.recipe.task, {role: Path(path) for role, path in self.recipe.prompts.items()})

    @cached_property
    def task(self) -> Task:
        """The task of the recipe."""
        if self.recipe.task in self._tasks:
            return self._tasks[self.recipe.task]
        if self.recipe.task == "math":
            from cope_train.tasks.math import Math

            return Math(self.prompts)
        from cope_train.tasks.word_problems import WordProblems

        return WordProblems(self.prompts)

    @cached_property
    def splits(self) -> dict[str, list[Problem]]:
        """All splits that the recipe names. Raises UserError when two of them overlap."""
        from cope_train.tasks import data

        named = {split: getattr(self.recipe.data, split) for split in ("train", "calibration", "test")}
        loaded = {split: data.load(source, self.recipe.task) for split, source in named.items() if source}
        if overlaps := data.overlap(loaded):
            raise UserError("\n".join(overlaps))
        return loaded

    def problems(self, split: str) -> list[Problem]:
        """One split. Raises UserError when the recipe has none of that name."""
        if split not in self.splits:
            raise UserError(f"recipe {self.recipe.name}: data.{split} is needed for this, and is not there")
        return self.splits[split]

    @cached_property
    def data_hashes(self) -> dict[str, str]:
        """Hash of every split's problems, in order."""
        return {split: hash_of([asdict(problem) for problem in rows]) for split, rows in self.splits.items()}

    @cached_property
    def store(self) -> Store:
        """The completions and the ledger: the run's own file, or the one that the recipe shares with others."""
        return Store(Path(self.recipe.store) if self.recipe.store else self.run.store, self.run.id)

    def models(self, verb: str, adapters: Mapping[str, Path] | None = None) -> Models:
        """The recipe's models for one verb, the trained one with `adapters` (role -> folder)."""
        return Models(
            self.recipe.models,
            self.store,
            {self.trained: adapters or {}},
            self.reporter.advance,
            self.reporter.note,
            self.budget(verb),
        )

    def budget(self, verb: str) -> Budget:
        """What the run and one verb of it may spend, less what the ledger says they have spent.

        Raises UserError when USD are limited and a bought model's price is not known.
        """
        given: Limits | None = getattr(self.recipe.budget, verb, None)
        caps = [("budget", self.recipe.budget)] + ([(f"budget.{verb}", given)] if given else [])
        if any(limits.usd is not None for _, limits in caps):
            prices.require(self.recipe.models, self.recipe.models, "a budget in USD needs it; budget.calls does not")
        budget = Budget(caps, verb, prices.bought(self.recipe.models))
        budget.load(self.store.calls())
        return budget

    @property
    def patient(self) -> set[str]:
        """Models that are asked for a vote's samples one by one: local ones, to whom a second call costs nothing."""
        models = self.recipe.models.items() if self.recipe.cascade.early_stop else ()
        return {name for name, spec in models if isinstance(spec, LocalModel)}

    @property
    def trained(self) -> str:
        """Name of the model that adapters belong to."""
        return self.recipe.train.base if self.recipe.train else "small"

    def model_inputs(self, names: Sequence[str]) -> dict[str, Any]:
        """What decides the answers of models: their fields less those of speed, and their weights."""
        return {name: _identity(self.recipe.models[name]) for name in names}

    @property
    def roles(self) -> dict[str, Train]:
        """The adapters that the recipe trains."""
        section = self.recipe.train
        found = {"planner": section.planner, "executor": section.executor} if section else {}
        return {role: train for role, train in found.items() if train}

    def adapters(self) -> dict[str, Path]:
        """Folders of trained and of ready adapters. Raises UserError when one is yet to be trained."""
        spec = self.recipe.models.get(self.trained)
        ready = {role: Path(path) for role, path in spec.adapters.items()} if isinstance(spec, LocalModel) else {}
        for role in self.roles:
            if not (self.run.adapter(role) / "adapter_config.json").exists():
                raise UserError(f"the {role} of this recipe is not trained in {self.run.path} yet: cope-train train")
        return ready | {role: self.run.adapter(role) for role in self.roles}

    def up_to_date(self, verb: str, inputs: Mapping[str, Any], outputs: Sequence[Path]) -> bool:
        """True when the verb was last done with just these inputs and left `outputs`.

        Otherwise tells what has changed, and takes the verb for not done from now on.
        """
        changes = self.run.changed(verb, inputs)
        if changes == [] and all(path.exists() for path in outputs):
            self.reporter.say(f"{verb}: up to date")
            return True
        if changes:
            self.reporter.say(f"{verb}: done anew, because " + "; ".join(changes))
        self.run.forget(verb)
        return False

    def done(self, verb: str, inputs: Mapping[str, Any]) -> None:
        """Remember that a verb was done with these inputs, and write down where its outputs come from."""
        self.run.done(verb, inputs)
        self.manifest(verb)

    def manifest(self, verb: str) -> None:
        """Write down where a verb's outputs come from."""
        facts = {"recipe": self.recipe.name, "seeds": list(self.recipe.seeds), "data": self.data_hashes}
        self.run.write_manifest(verb, facts)

    def refuse_others(self, verb: str, inputs: Mapping[str, Any], whose: str) -> None:
        """Raise UserError when what `verb` left in the folder belongs to other inputs than those given."""
        done = self.run.inputs(verb)
        if done is not None and (changes := self.run.changed(verb, {**done, **inputs})):
            raise UserError(
                f"{whose} in {self.run.path} belong to another recipe ({'; '.join(changes)}); "
                f"cope-train {verb} redoes what changed, and --out names another folder"
            )

    def close(self) -> None:
        """Let go of files and worker processes that were used."""
        if "store" in self.__dict__:
            self.store.close()
        if "task" in self.__dict__:
            self.task.close()


def _identity(spec: Any) -> dict[str, Any]:
    fields = spec.model_dump(mode="json", exclude=_SPEED_ONLY)
    if isinstance(spec, LocalModel):
        from cope_train.models.folders import resolve
        from cope_train.models.identity import weights_fingerprint

        fields["weights"] = weights_fingerprint(resolve(spec.path, spec.revision))
    elif spec.backend == "recorded":
        fields["path"] = spec.path
    return fields


@contextmanager
def opened(
    recipe: Recipe,
    out: Path | None = None,
    reporter: Reporter | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Iterator[Study]:
    """The recipe opened in `out` (`runs/NAME` when left out), which is locked until the block ends."""
    with RunDir.open(out or Path("runs") / recipe.name, recipe) as run:
        study = Study(recipe, run, reporter, tasks)
        try:
            yield study
        finally:
            study.close()
