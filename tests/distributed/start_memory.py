"""Run under a launcher: start runs, and note the most memory that each start took until its first step.

Anonymous memory is counted, the process's own: files that are mapped (weights) are pages of the system.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path
from types import TracebackType

import torch

from t0train.config import load_config
from t0train.data import open_loader
from t0train.distributed import find_place, join
from t0train.training.setup import build_trainer


def anonymous_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


class Peak:
    """Most memory of this process within a block, looked at every millisecond."""

    def __enter__(self) -> Peak:
        self._over = threading.Event()
        self.most = anonymous_bytes()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.most = max(self.most, anonymous_bytes())


torch.set_num_threads(1)
grown, before = {}, 0
with join(find_place(), "cpu", group_of_one=True, timeout_s=120) as world:
    for name, overrides in json.loads(Path(sys.argv[2]).read_text()).items():
        config = load_config(sys.argv[1], overrides)
        loader = open_loader(config, verify=False)
        with Peak() as peak:
            trainer = build_trainer(config, loader, "auto", world)
        del trainer
        gc.collect()
        before = before or anonymous_bytes()  # after the first case, which imports what is imported late
        grown[name] = peak.most - before
    Path(sys.argv[2]).with_name(f"grown-{world.rank}.json").write_text(json.dumps(grown))
