"""Start processes, and compare the runs that they leave."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.helpers import steps_of, tensors

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
"""Of the processes that tests start; their scripts import helpers as `tests.` does."""


def torchrun(processes: int, *arguments: str, options: Sequence[str] = (), timeout: float = 600) -> None:
    """Run a script in several processes of this machine."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *options]
    command = [sys.executable, "-m", *launcher, *arguments]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def run_cases(processes: int, config: Path, cases: list[dict[str, Any]], scratch: Path) -> None:
    """Train once for each case, in `processes` processes."""
    file = scratch / f"cases-{processes}.json"
    file.write_text(json.dumps(cases))
    torchrun(processes, str(Path(__file__).with_name("many_runs.py")), str(config), str(file))


def last_checkpoint(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*"))


def parameters(checkpoint: Path, scratch: Path) -> dict[str, Tensor]:
    return {name: value for name, value in tensors(checkpoint, scratch).items() if name.startswith("/model/")}


def assert_same_events(run: Path, reference: Path, first_step: int = 1, last_step: int | None = None) -> None:
    """Steps of two runs are equal: rows exactly, numbers up to the order of sums."""
    found = [event for event in steps_of(run) if event["step"] <= (last_step or event["step"])]
    expected = [event for event in steps_of(reference) if first_step <= event["step"] <= (last_step or event["step"])]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            if isinstance(value, float) and key != "lr":
                precision = 1e-4 if key in ("grad_norm", "update_rms") else 1e-5
                assert one[key] == pytest.approx(value, rel=precision), f"{key} of step {other['step']} of {run.name}"
            else:
                assert one[key] == value, f"{key} of step {other['step']} of {run.name}"


def assert_same_parameters(run: Path, reference: Path, start: Path, scratch: Path, adamw: bool = False) -> None:
    """Parameters differ by at most 1e-4 of the movement from `start`: by the norm of each, and by the largest elements.

    AdamW divides the smallest gradients by themselves, rounding errors and all: there single elements do not count.
    """
    first, found, expected = (parameters(last_checkpoint(folder), scratch) for folder in (start, run, reference))
    assert found.keys() == expected.keys() == first.keys()
    furthest = max(float((expected[name] - first[name]).abs().max()) for name in first)
    for name, value in expected.items():
        movement, difference = value - first[name], found[name] - value
        assert difference.norm() <= 1e-4 * movement.norm(), f"{name} of {run.name}"
        assert adamw or difference.abs().max() <= 1e-4 * furthest, f"{name} of {run.name}"


def assert_same_state(run: Path, reference: Path, scratch: Path) -> None:
    """The whole state of two last checkpoints is nearly equal."""
    found, expected = (tensors(last_checkpoint(folder), scratch) for folder in (run, reference))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3 * float(value.abs().max()), msg=name)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_like_srun(
    processes: int, *arguments: str, of_last: Sequence[str] = (), environment_of_last: Mapping[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """Start a script in several processes with the environment that srun gives, and nothing that watches over them.

    `of_last` are further arguments of the last process, `environment_of_last` further variables.
    """
    shared = {
        "SLURM_NTASKS": str(processes),
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_TASKS_PER_NODE": str(processes),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    last = processes - 1
    return [
        subprocess.Popen(
            [sys.executable, *arguments, *(of_last if rank == last else ())],
            env={
                **ENVIRONMENT,
                **shared,
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                **((environment_of_last or {}) if rank == last else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def ends(processes: list[subprocess.Popen[str]], timeout: float) -> list[tuple[int, str]]:
    """Exit code and stderr of every process; those that have not ended in time are killed, and the test fails."""
    deadline = time.monotonic() + timeout
    try:
        return [
            (process.wait(max(0.1, deadline - time.monotonic())), process.communicate()[1]) for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
