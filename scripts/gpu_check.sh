#!/usr/bin/env bash
# Checks on one CUDA device what the tests cannot: attention backends against eager, compiled and checkpointed blocks
# against plain ones, packing in bf16, optimizer updates, real runs under every strategy, memory against the estimate, and
# speed. Prints one line where there is no device. Arguments go to scripts/gpu_check.py.
#
#   bash scripts/gpu_check.sh --speed-size xl --rows 8
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
    echo "skipped: no CUDA device (a dry run without one: python scripts/gpu_check.py --device cpu --size tiny --speed-size tiny)"
    exit 0
fi
source scripts/setup.sh deepspeed
python scripts/gpu_check.py "$@"
