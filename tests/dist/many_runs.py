"""Run under a launcher: train once for each case of a JSON file, in the same processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from t0train.config import load_config
from t0train.core.stop import StopRequest
from t0train.dist import find_place, join
from t0train.train.loop import _train

torch.set_num_threads(1)
with join(find_place(), "cpu", group_of_one=True, timeout_s=120) as world:  # DeepSpeed keeps to the first group it sees
    for case in json.loads(Path(sys.argv[2]).read_text()):
        config = load_config(sys.argv[1], case["overrides"])
        _train(config, case["resume"], world, lambda remark: None, False, StopRequest())
