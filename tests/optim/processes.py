"""Running a function in several gloo processes on this machine, with a hard time limit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import spawn

Results = dict[str, Any]


def run_processes(worker: Callable[[Path], Results], ranks: int, folder: Path, limit: float = 400) -> Results:
    """`worker(folder)` in each of `ranks` processes of one gloo group; what rank 0 returns."""
    running = spawn(_enter, (worker, ranks, str(folder)), nprocs=ranks, join=False)
    assert running is not None
    deadline = time.monotonic() + limit
    try:
        while not running.join(timeout=1):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{worker.__name__} with {ranks} processes took more than {limit:.0f} s")
    finally:
        for process in running.processes:
            process.kill()
    results: Results = json.loads((folder / "results.json").read_text())
    return results


def _enter(rank: int, worker: Callable[[Path], Results], ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
    os.environ.update(DS_ACCELERATOR="cpu", TORCH_EXTENSIONS_DIR=f"{folder}/extensions")
    store = FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    results = worker(Path(folder))
    if rank == 0:
        Path(folder, "results.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
