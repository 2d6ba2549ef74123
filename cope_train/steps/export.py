"""export: trained adapters as folders that PEFT loads anywhere, with a manifest and a card."""

from __future__ import annotations

import json
import shutil
from typing import Any

from cope_train.models.adapters import MANIFEST, read_manifest
from cope_train.models.identity import weights_fingerprint
from cope_train.records import UserError
from cope_train.study import Study

_USE = {"planner": "write plans", "executor": "solve under a plan"}


def export(study: Study) -> None:
    """Copy each adapter with its tokenizer into `export/`, with what it is worth according to the report."""
    if not study.roles:
        raise UserError(f"recipe {study.recipe.name} trains no adapter, so there is nothing to export")
    adapters = study.adapters()
    fresh = study.run.export.with_name("export.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for role in study.roles:
        shutil.copytree(adapters[role], fresh / role)
        manifest = read_manifest(fresh / role) | {
            "recipe": study.recipe.name,
            "figures_of_cascade": _worth(study, role),
        }
        (fresh / role / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        (fresh / role / "README.md").write_text(_card(role, manifest), encoding="utf-8")
    shutil.rmtree(study.run.export, ignore_errors=True)
    fresh.rename(study.run.export)
    study.reporter.say(f"export: {' and '.join(study.roles)} in {study.run.export}")


def _worth(study: Study, role: str) -> dict[str, Any]:
    path, done = study.run.report("json"), study.run.inputs("evaluate") or {}
    evaluated = done.get("adapters", {}).get(role) == weights_fingerprint(study.run.adapter(role))
    if not evaluated or not path.exists():
        return {}
    report = json.loads(path.read_text())
    base = study.recipe.cascade.strategy
    wanted = [name for name in (base, f"{base}@{role}") if name in report["strategies"]]
    keys = ("accuracy", "accuracy_ci95", "usd_per_million", "usd_per_million_ci95", "stage_share")
    return {name: {key: report["strategies"][name][key] for key in keys} for name in wanted}


def _card(role: str, manifest: dict[str, Any]) -> str:
    base, training = manifest["base"], manifest["training"]
    lines = [
        *("---", "library_name: peft", f"base_model: {base['name']}", "tags: [cope_train, lora]", "---"),
        *(f"# {role.capitalize()} adapter for {base['name']}", ""),
        f"A LoRA adapter (rank {training['lora']['rank']}) that makes the base model a better {role} in the COPE "
        f"cascade (arXiv 2506.11578). It is meant for that role alone: switch it on to {_USE[role]}, off otherwise.",
        *("", f"- base: `{base['name']}`, revision {base['revision'] or 'not given'}, weights `{base['fingerprint']}`"),
        f"- recipe: {manifest['recipe']}; {manifest['figures']['rows']} rows, {manifest['figures']['steps']} steps of "
        f"{training['method']} at learning rate {training['learning_rate']}",
        *("", "## What it is worth", ""),
        *_figures(manifest["figures_of_cascade"]),
        *(
            "",
            "## Load it",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
        ),
        *("", f'base = AutoModelForCausalLM.from_pretrained("{base["name"]}")  # the base named above, and no other'),
        f'model = PeftModel.from_pretrained(base, "path/to/{role}")',
        *(
            "```",
            "",
            f"`{MANIFEST}` holds the fingerprint of the base's weights; `cope-train` refuses any other base.",
            "",
        ),
    ]
    return "\n".join(lines)


def _figures(worth: dict[str, Any]) -> list[str]:
    if not worth:
        return ["Not evaluated yet."]
    lines = ["| cascade | accuracy | USD per million problems |", "|---|---|---|"]
    for name, row in worth.items():
        low, high = row["accuracy_ci95"]
        cost = "unknown" if row["usd_per_million"] is None else f"{row['usd_per_million']:.1f}"
        lines.append(f"| {name} | {row['accuracy']:.3f} [{low:.3f}, {high:.3f}] | {cost} |")
    return lines
