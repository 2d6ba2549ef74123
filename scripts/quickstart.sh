#!/usr/bin/env bash
# Sets up .venv and runs the whole line on the bundled models: collect, train, evaluate, report, export.
# Needs Python >= 3.11; no GPU, no download of weights. Run it again: nothing is done twice.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
cope-train run recipes/word_problems/tiny.yaml --out runs/quickstart
