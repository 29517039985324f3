"""What a run needs of GPUs: memory, time and cost, computed from its configuration alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass, replace
from typing import Any

from t0train.config import RunConfig
from t0train.config.architecture import T5Config
from t0train.config.resolve import (
    Backend,
    Strategy,
    check_attention,
    check_recomputation,
    resolve_attention,
    resolve_replicas,
    resolve_strategy,
)
from t0train.core.errors import UserError
from t0train.estimate.flops import RowFlop, parameter_count, row_flop
from t0train.estimate.hardware import Device, find_architecture, find_device
from t0train.estimate.memory import FP32, Memory, Workload, peak_bytes, start_bytes, step_memory

GPUS_OF_A_MACHINE = 8
"""Assumed where the number of machines matters: hsdp keeps a copy of the model on each."""


@dataclass(frozen=True)
class Estimate:
    """What `estimate` gives.

    Attributes:
        run: name of the run.
        start: what it starts from.
        device: the kind of GPU.
        workload: what the bytes follow from.
        memory: bytes on each GPU.
        start_bytes: bytes on each GPU before the first step, where that may be more; see `start_bytes`.
        host_bytes_per_node: RAM for loading: one fp32 copy of the weights, whatever the number of processes.
        parameters: number of them.
        flop: of one packed row.
        rows: packed rows of an optimizer step, over all GPUs.
        steps: optimizer steps.
        utilisation: share of the device's peak, of the FLOP that are executed, recomputation included.
        price_per_hour: of one GPU.
        largest_micro_batch: most rows that fit through the model at once; 0 if not even one does.
        advice: what to change so that it fits, the cheapest change first; empty if it fits.
    """

    run: str
    start: str
    device: Device
    workload: Workload
    memory: Memory
    start_bytes: int
    host_bytes_per_node: int
    parameters: int
    flop: RowFlop
    rows: float
    steps: int
    utilisation: float
    price_per_hour: float | None
    largest_micro_batch: int
    advice: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the bytes fit on the device."""
        return fits(self.workload, self.device)

    @property
    def seconds_per_step(self) -> float:
        """Time of an optimizer step."""
        peak = self.workload.count * self.device.peak_flop_per_s(self.workload.precision)
        return self.rows * (self.flop.train + self.recomputed_flop) / (peak * self.utilisation)

    @property
    def recomputed_flop(self) -> int:
        """Of a row: what activation checkpointing computes a second time."""
        if self.workload.checkpointing == "block":
            return self.flop.forward - self.flop.head
        is_unfused = self.workload.checkpointing == "selective" and self.workload.attention == "eager"
        return self.flop.attention if is_unfused else 0

    @property
    def hours(self) -> float:
        """Time of the whole run, without evaluation, checkpoints and waiting."""
        return self.steps * self.seconds_per_step / 3600

    @property
    def cost(self) -> float | None:
        """Price of the whole run."""
        return None if self.price_per_hour is None else self.hours * self.workload.count * self.price_per_hour

    def as_dict(self) -> dict[str, Any]:
        """Plain values, units in the names."""
        workload = asdict(self.workload)
        return {
            "run": self.run,
            "start": self.start,
            "model": workload.pop("model"),
            "parameters": self.parameters,
            "device": asdict(self.device),
            "optimizer": workload.pop("optimizer").name,
            **workload,
            "bytes_per_gpu": {**asdict(self.memory), "total": self.memory.total},
            "bytes_per_gpu_at_start": self.start_bytes,
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "advice": list(self.advice),
            "host_bytes_per_node": self.host_bytes_per_node,
            "flop_per_row": {**asdict(self.flop), "forward": self.flop.forward, "train": self.flop.train},
            "rows_per_step": self.rows,
            "steps": self.steps,
            "run_flop": self.flop.train * self.rows * self.steps,
            "utilisation": self.utilisation,
            "seconds_per_step": self.seconds_per_step,
            "hours": self.hours,
            "price_per_hour": self.price_per_hour,
            "cost": self.cost,
        }


def estimate(
    config: RunConfig,
    device: str,
    count: int = 1,
    *,
    mfu: float = 0.5,
    examples_per_row: float | None = None,
    price_per_hour: float | None = None,
) -> Estimate:
    """Memory, time and cost of a run on `count` GPUs.

    Args:
        config: the run.
        device: a name of `DEVICES`.
        count: GPUs.
        mfu: share of the device's peak that is reached.
        examples_per_row: mean examples of a packed row; needed where a step is counted in examples.
        price_per_hour: of one GPU.

    Raises:
        UserError: unknown device or size of the model, a run that would be refused, numbers out of range.
    """
    for name, value in (("mfu", mfu), ("examples_per_row", examples_per_row), ("price_per_hour", price_per_hour)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} is {value}, but a positive number is expected.")
    if mfu > 1:
        raise UserError(f"mfu is {mfu}, but it is a share of the device's peak; give e.g. 0.5 for 50 %.")
    kind = find_device(device)
    strategy = resolve_strategy(config.train, count)
    architecture = find_architecture(config.model)
    rows = _rows_per_step(config, examples_per_row)
    workload = Workload(
        model=architecture,
        max_inputs=config.data.max_inputs,
        max_targets=config.data.max_targets,
        micro_batch_rows=min(config.train.batch.micro_batch_rows, math.ceil(rows / count)),
        chunk=config.train.loss.chunk,
        precision=config.train.precision,
        attention=_attention(config, architecture),
        dropout=config.model.dropout,
        dropout_style=config.model.dropout_style,
        optimizer=config.optimizer,
        strategy=strategy,
        shards=_shards(config, strategy, count),
        zero_stage=config.train.deepspeed.stage,
        checkpointing=config.train.activation_checkpointing,
        count=count,
    )
    parameters = parameter_count(architecture)
    return Estimate(
        run=config.name,
        start=config.model.init_from,
        device=kind,
        workload=workload,
        memory=step_memory(workload),
        start_bytes=start_bytes(workload),
        host_bytes_per_node=FP32 * parameters,
        parameters=parameters,
        flop=row_flop(workload.model, workload.max_inputs, workload.max_targets),
        rows=rows,
        steps=config.train.steps,
        utilisation=mfu,
        price_per_hour=price_per_hour,
        largest_micro_batch=largest_micro_batch(workload, kind, rows),
        advice=() if fits(workload, kind) else tuple(advice(workload, kind, rows)),
    )


def _rows_per_step(config: RunConfig, examples_per_row: float | None) -> float:
    batch = config.train.batch
    if batch.rows is not None:
        return batch.rows
    assert batch.examples is not None  # the schema asks for one of the two
    if examples_per_row is None:
        raise UserError(
            f"a step of this run is {batch.examples:,} examples, and the estimate needs packed rows: give "
            "--examples-per-row (`t0train data inspect` prints it), or train.batch.rows=N."
        )
    return batch.examples / examples_per_row


def _attention(config: RunConfig, architecture: T5Config) -> Backend:
    model = config.model
    trained = replace(architecture, dropout=model.dropout, dropout_style=model.dropout_style)
    check_attention(model.attention, trained.drops_weights)
    check_recomputation(config.train.activation_checkpointing, model.attention)
    return resolve_attention(model.attention, trained.drops_weights, "cuda", requires_grad=True)


def _shards(config: RunConfig, strategy: Strategy, count: int) -> int:
    """The pieces that a strategy cuts the model in."""
    if strategy == "hsdp":
        return count // resolve_replicas(config.train, count, GPUS_OF_A_MACHINE)
    return count if strategy in ("fsdp", "deepspeed") else 1


_MOST_GPUS = 4096  # beyond this, more of them is no advice


def fits(workload: Workload, device: Device) -> bool:
    """Whether the bytes of a step fit on a GPU."""
    return peak_bytes(workload) <= device.memory_bytes


def largest_micro_batch(workload: Workload, device: Device, rows: float) -> int:
    """Most rows at once that fit, up to a GPU's share of the `rows` of a step; 0 if not even one does."""
    numbers = range(1, math.ceil(rows / workload.count) + 1)
    return bisect_right(
        numbers, device.memory_bytes, key=lambda number: peak_bytes(replace(workload, micro_batch_rows=number))
    )


def advice(workload: Workload, device: Device, rows: float) -> list[str]:
    """Changes after which the step fits: each that is enough alone, or else several together; and more GPUs.

    Args:
        workload: one that does not fit.
        device: the GPU.
        rows: of an optimizer step, over all GPUs.
    """
    one_row: dict[str, Any] = {"micro_batch_rows": 1}
    changes = _cheapest_first(workload)
    enough = [change for change in (one_row, *changes) if fits(replace(workload, **change), device)]
    all_of_them = one_row
    if not enough:
        for change in changes:
            all_of_them = {**all_of_them, **change}
            if fits(replace(workload, **all_of_them), device):
                enough = [all_of_them]
                break
    if not any({"strategy", "zero_stage"} & change.keys() for change in enough):
        for kept in [{}] if enough else [{}, all_of_them]:
            enough += _more_gpus(workload, device, rows, kept)
            if enough:
                break
    return [_describe_change(workload, device, rows, change) for change in enough]


def _cheapest_first(workload: Workload) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    if workload.attention == "eager" and (workload.dropout == 0 or workload.dropout_style == "mesh"):
        changes.append({"attention": "sdpa"})
    if workload.strategy == "deepspeed" and workload.zero_stage < 3:
        changes.append({"zero_stage": 3})
    elif workload.strategy != "fsdp" and workload.count > 1:
        changes.append({"strategy": "fsdp", "shards": workload.count})
    if workload.checkpointing == "none" and workload.attention == "sdpa":
        changes.append({"checkpointing": "selective"})
    if workload.checkpointing != "block":
        changes.append({"checkpointing": "block"})
    return changes


def _more_gpus(workload: Workload, device: Device, rows: float, kept: dict[str, Any]) -> list[dict[str, Any]]:
    """The smallest number of GPUs, in steps of two times, over which a step fits that is changed as in `kept`.

    No number is tried at which a GPU would have fewer than `micro_batch_rows` rows to itself.
    """
    changed = replace(workload, **kept)
    count = 2 * workload.count
    while count <= min(rows / changed.micro_batch_rows, _MOST_GPUS):
        shares_are_whole = rows % count == 0 or rows % workload.count != 0
        change = {**kept, "strategy": "fsdp", "count": count, "shards": count}
        if shares_are_whole and fits(replace(workload, **change), device):
            return [change]
        count *= 2
    return []


def _describe_change(workload: Workload, device: Device, rows: float, change: dict[str, Any]) -> str:
    """The changes in the user's words. Of micro_batch_rows, the most that fit."""
    most = largest_micro_batch(replace(workload, **change), device, rows)
    becomes_fsdp = change.get("strategy") == "fsdp" and workload.strategy not in ("single", "fsdp")  # of one GPU: auto
    words = {
        "attention": "model.attention=sdpa (keeps no scores)",
        "checkpointing": {
            "selective": "train.activation_checkpointing=selective (computes what is cheap again)",
            "block": "train.activation_checkpointing=block (a third more FLOP)",
        }.get(change.get("checkpointing", "")),
        "micro_batch_rows": f"train.batch.micro_batch_rows={most} (the same result)"
        if most < workload.micro_batch_rows
        else "",
        "zero_stage": "train.deepspeed.stage=3",
        "strategy": "train.strategy=fsdp" if becomes_fsdp else "",
        "count": f"{change.get('count')} GPUs",
    }
    return " with ".join(word for name, word in words.items() if name in change and word)
