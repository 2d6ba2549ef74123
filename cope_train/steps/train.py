"""train: a plan set in, adapters out."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from cope_train.models.adapters import MANIFEST
from cope_train.models.folders import resolve
from cope_train.models.identity import weights_fingerprint
from cope_train.models.loading import load_model, load_tokenizer, render
from cope_train.plans import planset
from cope_train.recipe.schema import LocalModel, Train
from cope_train.records import UserError
from cope_train.rundir import hash_of, versions
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
        "plan set": hash_of([plan.plan + str(plan.kept) + "".join(plan.solutions) for plan in plans]),
        "prompts": study.prompts.hashes,
        "base": {"fingerprint": base["fingerprint"], "dtype": spec.dtype},
    }
    out, verb = study.run.adapter(role), f"train {role}"
    if study.up_to_date(verb, inputs) and out.exists():
        study.reporter.say(f"{verb}: up to date")
        return
    _forget_other_checkpoints(study.run.checkpoints(role), inputs)
    figures = _fit(study, role, section, spec, folder, plans, out.with_name(out.name + ".new"))
    manifest = {"role": role, "base": base, "training": section.model_dump(mode="json"), "figures": figures}
    manifest |= {"plan_set": inputs["plan set"], "prompts": study.prompts.hashes, "versions": versions()}
    (out.with_name(out.name + ".new") / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    out.with_name(out.name + ".new").rename(out)
    study.run.done(verb, inputs)
    study.reporter.say(f"{verb}: {figures['rows']} rows, {figures['steps']} steps, mean loss {figures['loss']:.3f}")


def _fit(
    study: Study, role: str, section: Train, spec: LocalModel, folder: Path, plans: list[planset.Plan], out: Path
) -> dict[str, Any]:
    from cope_train.training import sft

    tokenizer = load_tokenizer(folder)
    model = load_model(folder, spec)
    job = sft.Job(
        role=role,
        section=section,
        data=_rows(study, role, section, plans, tokenizer, model, spec),
        model=model,
        tokenizer=tokenizer,
        checkpoints=study.run.checkpoints(role),
        metrics=study.run.metrics(role),
        tracking=study.recipe.tracking,
        run_id=f"{study.recipe.name}-{role}-{hash_of(str(study.run.path.resolve()))[:8]}",
        progress=study.reporter.advance,
    )
    shutil.rmtree(out, ignore_errors=True)
    return sft.train(job, out)


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


def _forget_other_checkpoints(folder: Path, inputs: dict[str, Any]) -> None:
    """Checkpoints of other inputs must not be resumed from."""
    mark = folder / "inputs.txt"
    if not mark.exists() or mark.read_text() != hash_of(inputs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(hash_of(inputs))
