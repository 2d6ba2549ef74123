"""collect: problems in, a plan set out."""

from __future__ import annotations

from cope_train.plans import planset
from cope_train.plans.collect import Collector
from cope_train.records import UserError
from cope_train.study import Study


def collect(study: Study) -> None:
    """Collect plans on the training split and keep those that the executor succeeds with."""
    recipe, section = study.recipe, study.recipe.plans
    if section is None:
        raise UserError(f"recipe {recipe.name} has no section `plans`, so there is nothing to collect")
    problems = study.problems("train")
    used = sorted({section.planner, section.keep.executor})
    inputs = {
        "task": recipe.task,
        "seed": recipe.seeds[0],
        "data.train": study.data_hashes["train"],
        "plans": section.model_dump(mode="json"),
        "sampling": {role: values.model_dump(mode="json") for role, values in recipe.sampling.items()},
        "prompts": study.prompts.hashes,
        "models": study.model_inputs(used),
    }
    if study.up_to_date("collect", inputs) and (study.run.plans / "README.md").exists():
        study.reporter.say("collect: up to date")
        return
    collector = Collector(study.models(), study.task, section, recipe.sampling, study.prompts.hashes)
    plans = collector.collect(problems, recipe.seeds[0])
    facts = {"recipe": recipe.name, "task": recipe.task, "problems asked": len(problems), "seed": recipe.seeds[0]}
    planset.save(plans, study.run.plans, facts)
    study.run.done("collect", inputs)
    for kind, row in planset.summary(plans).items():
        rate = "none tried" if row["success_rate"] is None else f"executor succeeds {row['success_rate']:.0%}"
        broken = ", ".join(f"{rule} {count}" for rule, count in row["lint"].items()) or "none"
        study.reporter.say(f"collect: {row['plans']} {kind}s, {row['kept']} kept; {rate}; lint: {broken}")
