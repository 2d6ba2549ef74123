#!/usr/bin/env bash
# Sets up .venv with the test tools and passes the tests. Arguments go to pytest. Run it again: nothing is installed twice.
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev source scripts/venv.sh
ruff check .
ruff format --check .
pytest "$@"
