"""What to change in a run that does not fit; every piece of advice has been tried."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace
from typing import Any

from t0train.estimate.devices import Device
from t0train.estimate.memory import Step, peak_bytes

_MOST_GPUS = 4096  # beyond this, more of them is no advice


def fits(step: Step, device: Device) -> bool:
    """Whether a step's bytes fit on a GPU."""
    return peak_bytes(step) <= device.memory_bytes


def largest_micro_batch(step: Step, device: Device, rows: float) -> int:
    """Most rows at once that fit, up to a GPU's share of the `rows` of a step; 0 if not even one does."""
    numbers = range(1, math.ceil(rows / step.count) + 1)
    return bisect_right(
        numbers, device.memory_bytes, key=lambda number: peak_bytes(replace(step, micro_batch_rows=number))
    )


def advice(step: Step, device: Device, rows: float) -> list[str]:
    """Changes after which the step fits: each that is enough alone, or else several together; and more GPUs.

    Args:
        step: one that does not fit.
        device: the GPU.
        rows: of an optimizer step, over all GPUs.
    """
    one_row: dict[str, Any] = {"micro_batch_rows": 1}
    changes = _cheapest_first(step)
    enough = [change for change in (one_row, *changes) if fits(replace(step, **change), device)]
    all_of_them = one_row
    if not enough:
        for change in changes:
            all_of_them = {**all_of_them, **change}
            if fits(replace(step, **all_of_them), device):
                enough = [all_of_them]
                break
    if not any({"strategy", "zero_stage"} & change.keys() for change in enough):
        for kept in [{}] if enough else [{}, all_of_them]:
            enough += _more_gpus(step, device, rows, kept)
            if enough:
                break
    return [_words(step, device, rows, change) for change in enough]


def _cheapest_first(step: Step) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    if step.attention == "eager" and (step.dropout == 0 or step.dropout_style == "mesh"):
        changes.append({"attention": "sdpa"})
    if step.strategy == "deepspeed" and step.zero_stage < 3:
        changes.append({"zero_stage": 3})
    elif step.strategy != "fsdp" and step.count > 1:
        changes.append({"strategy": "fsdp", "shards": step.count})
    if step.checkpointing == "none" and step.attention == "sdpa":
        changes.append({"checkpointing": "selective"})
    if step.checkpointing != "block":
        changes.append({"checkpointing": "block"})
    return changes


def _more_gpus(step: Step, device: Device, rows: float, kept: dict[str, Any]) -> list[dict[str, Any]]:
    """The smallest number of GPUs, in steps of two times, over which a step fits that is changed as in `kept`.

    No number is tried at which a GPU would have fewer than `micro_batch_rows` rows to itself.
    """
    changed = replace(step, **kept)
    count = 2 * step.count
    while count <= min(rows / changed.micro_batch_rows, _MOST_GPUS):
        shares_are_whole = rows % count == 0 or rows % step.count != 0
        change = {**kept, "strategy": "fsdp", "count": count, "shards": count}
        if shares_are_whole and fits(replace(step, **change), device):
            return [change]
        count *= 2
    return []


def _words(step: Step, device: Device, rows: float, change: dict[str, Any]) -> str:
    """The changes in the user's words. Of micro_batch_rows, the most that fit."""
    most = largest_micro_batch(replace(step, **change), device, rows)
    becomes_fsdp = change.get("strategy") == "fsdp" and step.strategy not in ("single", "fsdp")  # of one GPU: auto
    words = {
        "attention": "model.attention=sdpa (keeps no scores)",
        "checkpointing": {
            "selective": "train.activation_checkpointing=selective (computes what is cheap again)",
            "block": "train.activation_checkpointing=block (a third more FLOP)",
        }.get(change.get("checkpointing", "")),
        "micro_batch_rows": f"train.batch.micro_batch_rows={most} (the same result)"
        if most < step.micro_batch_rows
        else "",
        "zero_stage": "train.deepspeed.stage=3",
        "strategy": "train.strategy=fsdp" if becomes_fsdp else "",
        "count": f"{change.get('count')} GPUs",
    }
    return " with ".join(word for name, word in words.items() if name in change and word)
