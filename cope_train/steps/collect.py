"""collect: problems in, a plan set out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cope_train.errors import UserError
from cope_train.plans import planset
from cope_train.plans.collect import Collector
from cope_train.study import Study


def collect(study: Study) -> None:
    """Collect plans on the training split and keep those that the executor succeeds with."""
    recipe, section = study.recipe, study.recipe.plans
    if section is None:
        raise UserError(f"recipe {recipe.name} has no section `plans`, so there is nothing to collect")
    inputs = asked(study)
    if study.up_to_date("collect", inputs | {"failed": 0}, [study.run.plans / "README.md"]):
        return
    problems = study.problems("train")
    collector = Collector(study.models("collect"), study.task, section, recipe.sampling, study.prompts.hashes)
    facts = {"recipe": recipe.name, "task": recipe.task, "problems asked": len(problems), "seed": recipe.seeds[0]}
    lacking = _Lacking(len(problems) * section.samples * len(section.kinds), section.keep.samples)
    tally = planset.save(lacking.watch(collector.collect(problems, recipe.seeds[0])), study.run.plans, facts)
    # What could not be had is asked for once more by the same command.
    study.done("collect", inputs | {"failed": lacking.count})
    for kind, row in tally.summary().items():
        rate = "none tried" if row["success_rate"] is None else f"executor succeeds {row['success_rate']:.0%}"
        broken = ", ".join(f"{rule} {count}" for rule, count in row["lint"].items()) or "none"
        study.reporter.say(f"collect: {row['plans']} {kind}s, {row['kept']} kept; {rate}; lint: {broken}")


def asked(study: Study) -> dict[str, Any]:
    """Everything that a plan set of this recipe depends on."""
    recipe, section = study.recipe, study.recipe.plans
    return {
        "task": recipe.task,
        "seed": recipe.seeds[0],
        "data.train": study.data_hashes["train"],
        "plans": section.model_dump(mode="json"),
        "sampling": {role: values.model_dump(mode="json") for role, values in recipe.sampling.items()},
        "prompts": study.prompts.hashes,
        "models": study.model_inputs(sorted({section.planner, section.keep.executor})),
    }


class _Lacking:
    """Counts plans that were not written, and solutions that were not had or not graded, as plans pass by."""

    def __init__(self, plans: int, samples: int) -> None:
        self.count = plans
        self._samples = samples

    def watch(self, plans: Iterable[planset.Plan]) -> Iterator[planset.Plan]:
        """The same plans."""
        for plan in plans:
            self.count += (0 if plan.lint else self._samples - plan.samples) - 1
            yield plan
