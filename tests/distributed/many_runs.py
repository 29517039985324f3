"""Run under a launcher: train once for each case of a JSON file, in the same processes; note the rows of each.

`train.compile` traces blocks and their gradients, but does not generate code, which would take minutes on a CPU.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch

from t0train.config import load_config
from t0train.core.processes import StopRequest
from t0train.distributed import find_place, join
from t0train.model import compile_blocks
from t0train.training import Trainer
from t0train.training import setup as setup_module
from t0train.training.run import _train
from t0train.training.setup import ignore
from tests.distributed.noted_rows import noting

torch.set_num_threads(1)
setup_module.compile_blocks = partial(compile_blocks, backend="aot_eager")  # type: ignore[attr-defined]
Trainer.step = noting(Trainer.step)  # type: ignore[method-assign]
with join(find_place(), "cpu", group_of_one=True, timeout_s=120) as world:  # DeepSpeed keeps to the first group it sees
    for case in json.loads(Path(sys.argv[2]).read_text()):
        config = load_config(sys.argv[1], case["overrides"])
        _train(config, case["resume"], world, ignore, False, StopRequest())
