"""train: a plan set in, adapters out."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cope_train.errors import UserError
from cope_train.models.adapters import MANIFEST
from cope_train.models.folders import resolve
from cope_train.models.identity import weights_fingerprint
from cope_train.models.loading import load_model, load_tokenizer, render
from cope_train.plans import planset
from cope_train.recipe.model_specs import LocalModel
from cope_train.recipe.schema import Train
from cope_train.rundir import hash_of, versions
from cope_train.steps.collect import asked as collected
from cope_train.study import Study
from cope_train.training.preflight import Preflight, preflight
from cope_train.training.rows import executor_rows, planner_rows

# Fields that do not change what a finished training yields.
_HOUSEKEEPING = {"resume", "keep_checkpoints", "save_steps"}


def train(study: Study) -> None:
    """Train every adapter that the recipe asks for, each for its role only."""
    if not study.roles:
        raise UserError(f"recipe {study.recipe.name} trains nothing: its section `train` is empty or missing")
    plans = planset.load(study.run.plans)
    if study.recipe.plans:
        study.refuse_others("collect", collected(study), "the plans")
    for role, section in study.roles.items():
        _train_role(study, role, section, plans)


def _train_role(study: Study, role: str, section: Train, plans: list[planset.Plan]) -> None:
    spec = study.recipe.models[study.trained]
    if not isinstance(spec, LocalModel):
        raise UserError(f"train.base: {study.trained} is {spec.backend}; only a local model can be trained")
    folder = resolve(spec.path, spec.revision)
    base = {"name": spec.path, "revision": spec.revision, "fingerprint": weights_fingerprint(folder)}
    inputs = {
        f"train.{role}": section.model_dump(mode="json", exclude=_HOUSEKEEPING),
        "plan set": hash_of([asdict(plan) for plan in plans]),
        "prompts": study.prompts.hashes,
        "base": {"fingerprint": base["fingerprint"], "dtype": spec.dtype},
        "chat_template_kwargs": spec.chat_template_kwargs,
    }
    out, verb = study.run.adapter(role), f"train {role}"
    if study.up_to_date(verb, inputs, [out]):
        return
    _forget_other_checkpoints(study.run.checkpoints(role), inputs, section.resume)
    run_id = f"{study.recipe.name}-{role}-{hash_of([str(study.run.path.resolve()), inputs])[:8]}"
    figures = _fit(study, role, section, spec, folder, plans, out.with_name(out.name + ".new"), run_id)
    manifest = {"role": role, "base": base, "training": section.model_dump(mode="json"), "figures": figures}
    manifest |= {"plan_set": inputs["plan set"], "prompts": study.prompts.hashes, "versions": versions()}
    (out.with_name(out.name + ".new") / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    out.with_name(out.name + ".new").rename(out)
    study.done(verb, inputs)
    study.reporter.say(f"{verb}: {figures['rows']} rows, {figures['steps']} steps, mean loss {figures['loss']:.3f}")


def _fit(
    study: Study,
    role: str,
    section: Train,
    spec: LocalModel,
    folder: Path,
    plans: list[planset.Plan],
    out: Path,
    run_id: str,
) -> dict[str, Any]:
    from cope_train.training import sft

    tokenizer = load_tokenizer(folder)
    model = load_model(folder, spec)
    data = _rows(study, role, section, plans, tokenizer, model, spec)
    for line in data.told:
        study.reporter.say(f"train {role}: {line}")
    job = sft.Job(
        role=role,
        section=section,
        data=data,
        model=model,
        tokenizer=tokenizer,
        checkpoints=study.run.checkpoints(role),
        metrics=study.run.metrics(role),
        tracking=study.recipe.tracking,
        run_id=run_id,
        progress=study.reporter.advance,
    )
    shutil.rmtree(out, ignore_errors=True)
    return sft.train(job, out) | {"dropped_rows": data.dropped, "trained_share": data.trained_share}


def _rows(
    study: Study,
    role: str,
    section: Train,
    plans: list[planset.Plan],
    tokenizer: Any,
    model: Any,
    spec: LocalModel,
) -> Preflight:
    problems = {problem.id: problem for problem in study.problems("train")}
    if strange := sorted({plan.problem_id for plan in plans} - set(problems)):
        raise UserError(
            f"{study.run.plans}: {len(strange)} problems of the plan set, such as {strange[0]}, are not in data.train"
        )
    make = planner_rows if role == "planner" else executor_rows
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    return preflight(
        make(plans, problems, study.task, section.kinds),
        tokenizer,
        partial(_rendered, tokenizer, spec),
        set(ends if isinstance(ends, list) else [ends]),
        section.max_length,
        section.max_dropped,
    )


def _rendered(tokenizer: Any, spec: LocalModel, messages: Any, opened: bool) -> str:
    return render(tokenizer, messages, spec.chat_template_kwargs, opened)


def _forget_other_checkpoints(folder: Path, inputs: dict[str, Any], resume: str) -> None:
    """Checkpoints of other inputs must not be resumed from, unless the recipe names one of them."""
    if folder.resolve() in Path(resume).resolve().parents:
        return
    mark = folder / "inputs.txt"
    if not mark.exists() or mark.read_text() != hash_of(inputs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(hash_of(inputs))
