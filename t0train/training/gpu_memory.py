"""GPU memory: the largest possible rows are tried first, and running out of memory is explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.data import RowBatch, build_rows
from t0train.distributed import Engine, World
from t0train.estimate import DEVICES, Estimate, estimate
from t0train.estimate.estimator import advice
from t0train.model import Batch

_GIB = 2**30
_WORD = 5  # any id but padding's and EOS's


@dataclass(frozen=True)
class GpuMemory:
    """Of this process's GPU.

    Attributes:
        name: of the GPU.
        size: bytes that it has.
        peak: most bytes that tensors have taken so far.
    """

    name: str
    size: int
    peak: int


def gpu_memory(device: torch.device) -> GpuMemory:
    """What the GPU has, and the most that was taken of it."""
    properties = torch.cuda.get_device_properties(device)
    return GpuMemory(properties.name, properties.total_memory, torch.cuda.max_memory_allocated(device))


def largest_rows(config: RunConfig, rows: int) -> RowBatch:
    """Rows that are one example each, full on both sides: no other rows take more memory."""
    inputs, targets = (np.full(length, _WORD) for length in (config.data.max_inputs, config.data.max_targets))
    return build_rows([[(inputs, [targets])]] * rows, config.data.max_inputs, config.data.max_targets)


def probe_memory(engine: Engine, config: RunConfig) -> None:
    """Take an optimizer step on two micro-batches of the largest possible rows, the second over the first's gradients.

    Do so before the engine's state is loaded: the numbers mean nothing and leave their traces in it.

    Raises:
        UserError: the memory is too small.
    """
    world = engine.world
    share = config.train.batch.rows or config.train.batch.examples or 1
    rows = largest_rows(config, min(config.train.batch.micro_batch_rows, -(-share // world.size)))
    batch = Batch.from_rows(rows, world.device)
    with explain_out_of_memory(config, world, "trying the largest possible rows (train.probe_memory)"):
        for is_last in (False, True):
            engine.backward(batch, denominator=float(rows.target_slots), is_last=is_last)
        engine.step(rate=0.0)


def memory_facts(config: RunConfig, world: World) -> dict[str, Any]:
    """The measured peak and the estimate, for the event log."""
    measured, estimated = gpu_memory(world.device), _estimate(config, world)
    of_kinds = {**asdict(estimated.memory), "total": estimated.memory.total} if estimated else None
    return {"device": measured.name, "measured_bytes": measured.peak, "estimated_bytes": of_kinds}


@contextmanager
def explain_out_of_memory(config: RunConfig, world: World, doing: str) -> Iterator[None]:
    """Turn torch's error into the estimate by kind, the measured peak, and what to change.

    Raises:
        UserError: the GPU's memory is too small.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(_explanation(config, world, gpu_memory(world.device), doing)) from error


def _explanation(config: RunConfig, world: World, measured: GpuMemory, doing: str) -> str:
    lines = [
        f"out of GPU memory while {doing}, on process {world.rank} of {world.size}: {measured.name} has "
        f"{_gib(measured.size)}, and the peak was {_gib(measured.peak)}."
    ]
    if (estimated := _estimate(config, world)) is None:
        changes = [
            "train.batch.micro_batch_rows=1 (the same result)",
            "train.activation_checkpointing=block",
            "more GPUs",
        ]
    else:
        kinds = ", ".join(f"{kind.replace('_', ' ')} {_gib(size)}" for kind, size in asdict(estimated.memory).items())
        lines.append(f"The estimate for it is {_gib(estimated.memory.total)}: {kinds}.")
        # what should have fitted did not, so ask for changes that take a tenth less at least
        size = min(measured.size, 0.9 * estimated.memory.total)
        changes = advice(estimated.workload, replace(estimated.device, memory_bytes=size), estimated.rows)
    if changes:
        lines += ["The cheapest changes that should make it fit:", *(f"  {change}" for change in changes[:3])]
    return "\n".join(lines)


def _estimate(config: RunConfig, world: World) -> Estimate | None:
    """None where the estimate does not know the model or the backend. Memory does not depend on the device."""
    try:
        return estimate(config, next(iter(DEVICES)), world.size, examples_per_row=1.0)
    except UserError:
        return None


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"
