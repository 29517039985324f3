#!/usr/bin/env bash
# Sets up .venv with the test tools, then checks style and types. Safe to run again.
#
#   bash scripts/lint.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh dev

ruff check .
ruff format --check .
mypy        # package and tests
mypy scripts/*.py
