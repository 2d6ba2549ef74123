"""From what a recipe calls a model to the folder it lies in: lab/NAME, a local folder, or a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from cope_train.errors import NotRunnableHere, UserError


def resolve(path: str, revision: str | None = None) -> Path:
    """The folder with a model's files; a hub id is fetched into the hub's cache, or found there.

    Raises UserError when there is no model, NotRunnableHere when the hub cannot be reached or refuses.
    """
    if path.startswith("lab/"):
        from cope_train import lab

        return lab.path(path.removeprefix("lab/"))
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"{path} is no model: no config.json in it")
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise UserError(f"{path}: no such folder, and no hub id (organisation/name)")
    return _from_hub(path, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except GatedRepoError as error:
        raise NotRunnableHere(
            f"{name}: its licence must be accepted on its hub page first; then log in with HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: the hub has no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name}: no such folder here and no such model on the hub") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise NotRunnableHere(
            f"{name}: not in the local cache, and the model hub cannot be reached from this machine; "
            "fetch it where there is a network and name its folder as the model's path"
        ) from error
