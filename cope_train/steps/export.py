"""export: trained adapters as folders that PEFT loads anywhere, with a manifest and a card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from cope_train.errors import UserError
from cope_train.models.adapters import MANIFEST, read_manifest
from cope_train.models.identity import weights_fingerprint
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
        _name_base(fresh / role / "adapter_config.json", manifest["base"]["name"])
        (fresh / role / "README.md").write_text(_card(role, manifest), encoding="utf-8")
    shutil.rmtree(study.run.export, ignore_errors=True)
    fresh.rename(study.run.export)
    study.reporter.say(f"export: {' and '.join(study.roles)} in {study.run.export}")


def _name_base(config: Path, name: str) -> None:
    """Call the base what the recipe calls it: PEFT wrote the folder that it lay in here."""
    settings = json.loads(config.read_text()) | {"base_model_name_or_path": name}
    config.write_text(json.dumps(settings, indent=2) + "\n")


def _worth(study: Study, role: str) -> dict[str, Any]:
    path, done = study.run.report("json"), study.run.inputs("evaluate") or {}
    evaluated = done.get("adapters", {}).get(role) == weights_fingerprint(study.run.adapter(role))
    if not evaluated or not path.exists():
        return {}
    report = json.loads(path.read_text())
    base = study.recipe.cascade.strategy
    names = ("large", base, f"{base}@{role}", f"{base}*", f"{base}*@{role}")
    wanted = [name for name in names if name in report["strategies"]]
    keys = ("accuracy", "accuracy_ci95", "usd_per_million", "usd_per_million_ci95", "stage_share")
    return {name: {key: report["strategies"][name][key] for key in keys} for name in wanted}


def _card(role: str, manifest: dict[str, Any]) -> str:
    kind, _, name = manifest["base"]["name"].partition("/")
    jinja = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)
    template = jinja.get_template("adapter_card.md.jinja")
    bundled = name if kind == "lab" else None
    return template.render(manifest, use=_USE[role], bundled=bundled, manifest_name=MANIFEST)
