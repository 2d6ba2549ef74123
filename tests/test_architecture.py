"""The house keeps its order: a room imports only from rooms above it, and names the libraries that are its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cope_train"
ROOMS = [
    "errors",
    "records",
    "recipe",
    "rundir",
    "prompts",
    "lab",
    "tasks",
    "models",
    "cascade",
    "plans",
    "training",
    "evaluation",
    "study",
    "steps",
    "verbs",
    "console",
    "cli",
]
# training is handed models and rewards, evaluation is handed traces: neither makes its own.
NEVER = {"training": {"models", "cascade"}, "evaluation": {"models", "cascade", "training", "plans", "tasks"}}
ONLY_IN = {"yaml": "recipe", "trl": "training", "openai": "models", "sqlite3": "models", "math_verify": "tasks"}


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of everything imported anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = [path for path in PACKAGE.rglob("*.py") if room(path) not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_above_it(path: Path) -> None:
    mine = room(path)
    allowed = set(ROOMS[: ROOMS.index(mine) + 1]) - NEVER.get(mine, set())
    used = {name.split(".")[1] for name in imports(path) if name.startswith("cope_train.")}
    assert used - {"__version__"} <= allowed


def test_every_folder_and_file_of_the_package_is_a_room() -> None:
    assert {room(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize(("library", "owner"), ONLY_IN.items())
def test_a_library_is_known_in_one_room_only(library: str, owner: str) -> None:
    users = {room(path) for path in FILES if any(name.split(".")[0] == library for name in imports(path))}
    assert users <= {owner}


def test_only_one_file_knows_trls_configuration() -> None:
    users = {path.name for path in FILES if any(name.startswith("trl.") and "Config" in name for name in imports(path))}
    assert users == {"to_trl.py"}


def test_help_is_fast_because_heavy_libraries_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    code = (
        "import sys; import cope_train.cli, cope_train.verbs; heavy = {'torch', 'transformers', 'trl', 'peft', "
        "'datasets', 'scipy', 'matplotlib', 'openai', 'wandb'}; sys.exit(', '.join(sorted(heavy & set(sys.modules))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""
