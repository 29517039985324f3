"""What several test files of this folder ask of a run folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from t0train.core.events import read_events


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_events(folder / "events.jsonl", "step"))


def tensors(checkpoint: Path, scratch: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its path, read by torch's own converter."""
    file = scratch / f"{checkpoint.parents[1].name}-{checkpoint.name}.pt"
    dcp_to_torch_save(checkpoint / "state", file)

    def walk(value: Any, prefix: str) -> dict[str, Tensor]:
        if isinstance(value, Tensor):
            return {prefix: value}
        return {name: leaf for key, inner in value.items() for name, leaf in walk(inner, f"{prefix}/{key}").items()}

    return walk(torch.load(file, weights_only=True), "")


def assert_same_state(one: Path, other: Path, scratch: Path) -> None:
    """Parameters and optimizer state of two checkpoints are equal bit by bit."""
    first, second = tensors(one, scratch), tensors(other, scratch)
    assert first.keys() == second.keys()
    assert any(name.startswith("/model/") for name in first)
    assert any(name.startswith("/optimizer/") for name in first)
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def start_training(config: Path, *arguments: str) -> subprocess.Popen[str]:
    """`t0train train` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "t0train", "train", str(config), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int, timeout: float = 120) -> None:
    """Return when the run has logged `step`."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (folder / "events.jsonl").exists() and any(event["step"] >= step for event in steps_of(folder)):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")
