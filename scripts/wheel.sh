#!/usr/bin/env bash
# Builds the source archive and, from it, the wheel (build/wheel), installs the wheel into an empty environment, and there
# trains, evaluates and reports the toy in an empty folder. Everything but build/wheel is temporary.
#
#   bash scripts/wheel.sh                  the whole toy run
#   bash scripts/wheel.sh train.steps=20   arguments are keys of the run
#
# $PYTHON names the interpreter (python3 by default); T0TRAIN_UNPINNED=1 ignores constraints.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
pins=(-c "$PWD/constraints.txt")
[[ -z "${T0TRAIN_UNPINNED:-}" ]] || pins=()
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

rm -rf build/wheel
"$python" -m venv "$scratch/build"
"$scratch/build/bin/pip" install -qq --disable-pip-version-check build
"$scratch/build/bin/python" -m build --outdir build/wheel .

"$python" -m venv "$scratch/empty"
export PATH="$scratch/empty/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
unset PYTHONPATH VIRTUAL_ENV
pip install -qq --disable-pip-version-check "${pins[@]}" torch
pip install -qq --disable-pip-version-check "${pins[@]}" build/wheel/*.whl

mkdir "$scratch/work"
cd "$scratch/work"
t0train --version
t0train toy runs/toy/p3
t0train data prepare toy
t0train train toy "$@"
t0train eval runs/toy/run
t0train report runs/toy/run
