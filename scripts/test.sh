#!/usr/bin/env bash
# Sets up .venv with the test tools and passes the tests. Arguments go to pytest. Run it again: nothing is installed twice.
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev source scripts/venv.sh
ruff check .
ruff format --check .
# One process a core and one thread each: models this small gain next to nothing from a second thread.
OMP_NUM_THREADS=1 pytest -n auto --dist loadfile "$@"
