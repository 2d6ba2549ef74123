"""The identity of a completion, and the fingerprints of weights that it rests on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from cope_train.errors import UserError
from cope_train.records import Request, Sampling


def completion_key(identity: Mapping[str, Any], request: Request, index: int) -> str:
    """SHA-256 (hex) of everything that decides what a completion can be, and of nothing else.

    `identity` is the backend's part: model, revision, adapter, rendered prompt. A greedy request has one answer,
    whoever asks; a sampled one is told apart by seed, problem, role and sample index too.
    """
    parts: dict[str, Any] = {"identity": dict(identity), "sampling": asdict(request.sampling)}
    if not request.sampling.greedy:
        parts |= {"seed": request.seed, "problem": request.problem_id, "role": request.role, "index": index}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def completion_keys(identity: Mapping[str, Any], request: Request) -> list[str]:
    """`completion_key` of each of a request's samples, with the parts that they share put into JSON once."""
    head = '{"identity": ' + json.dumps(identity, sort_keys=True, ensure_ascii=False)
    sampling = '"sampling": ' + _sampling_json(request.sampling)
    if request.sampling.greedy:
        return [_sha(f"{head}, {sampling}}}")] * len(request.indices)
    problem, role = (json.dumps(text, ensure_ascii=False) for text in (request.problem_id, request.role))
    tail = f'"problem": {problem}, "role": {role}, {sampling}, "seed": {request.seed}}}'
    return [_sha(f'{head}, "index": {index}, {tail}') for index in request.indices]


@cache
def _sampling_json(sampling: Sampling) -> str:
    return json.dumps(asdict(sampling), sort_keys=True, ensure_ascii=False)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def weights_fingerprint(folder: Path) -> str:
    """Short hash of a folder's weights and configuration, wherever it lies and whatever it is called.

    Raises UserError when there are no safetensors weights in it, or its configuration is broken.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder} is no model: no .safetensors weights in it")
    configs = [folder / name for name in ("config.json", "adapter_config.json") if (folder / name).exists()]
    states = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in [*weights, *configs])
    return _hash_files(states)


@cache
def _hash_files(states: Iterable[tuple[Path, int, int]]) -> str:
    # Size and time of change are in the argument so that rewritten weights are hashed anew.
    total = hashlib.sha256()
    for path, _, _ in states:
        if path.suffix == ".json":
            config = _config(path)
            # Where a base model lay when it was trained on, and which library saved it, change no output.
            for key in ("_name_or_path", "base_model_name_or_path", "transformers_version", "peft_version"):
                config.pop(key, None)
            # PEFT keeps names of modules as sets, and writes them in whatever order this process has them.
            config = {key: sorted(value) if _is_names(value) else value for key, value in config.items()}
            total.update(json.dumps(config, sort_keys=True).encode())
        else:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: no valid JSON ({error}); is the file cut off?") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: must hold an object with settings, as its library saved it")
    return config


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
