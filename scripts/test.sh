#!/usr/bin/env bash
# Sets up .venv with the test tools, then lints, type-checks and tests. Safe to run again.
#
#   bash scripts/test.sh                 everything
#   bash scripts/test.sh tests/model -x  only pytest, with these arguments
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $# -gt 0 ]] || bash scripts/lint.sh
source scripts/setup.sh dev

t0train prompts install
pytest -n 2 --dist loadfile "$@"
