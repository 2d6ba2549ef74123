"""What an adapter says about itself: its role, and the base it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cope_train.errors import UserError

MANIFEST = "cope_train.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest beside an adapter's weights, with its base's fingerprint.

    Raises UserError when the folder holds no adapter of ours, or the manifest is broken.
    """
    if not (folder / "adapter_config.json").exists():
        raise UserError(f"{folder} is no adapter: no adapter_config.json in it")
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {MANIFEST}, so the base it was trained on is unknown; PEFT would load it on any base of "
            "the same shape without a word"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST}: no valid JSON ({error}); export or train the adapter anew") from error
    base = manifest.get("base") if isinstance(manifest, dict) else None
    if not isinstance(base, dict) or not isinstance(base.get("fingerprint"), str):
        raise UserError(
            f"{folder / MANIFEST}: no base.fingerprint, so the base it was trained on is unknown; export or train the "
            "adapter anew"
        )
    return manifest


def check_base(folder: Path, fingerprint: str, name: str) -> None:
    """Refuse an adapter that was trained on other weights than those with `fingerprint` (UserError)."""
    base = read_manifest(folder)["base"]
    if base["fingerprint"] != fingerprint:
        raise UserError(
            f"{folder} was trained on {base.get('name', 'another base')} (weights {base['fingerprint']}), "
            f"not on {name} (weights {fingerprint}): load it on its own base, or train it anew"
        )
