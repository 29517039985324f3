"""One optimizer step: gradients of a global batch in micro-batches, checks, update."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from t0train.checkpoint import first_non_finite
from t0train.config.schema import TrainConfig
from t0train.core.errors import UserError
from t0train.data import RowBatch, RowPlan
from t0train.distributed import Engine, World
from t0train.model import Batch, loss_denominator

_ALONE = World()


class NonFiniteError(UserError):
    """The loss, the gradient or a parameter became infinite or NaN; the newest checkpoint is of a step before."""


@dataclass(frozen=True)
class Gradients:
    """What a global batch gave; the gradients themselves stand in the parameters.

    Attributes:
        loss: what is minimised: summed cross-entropy and z-loss over the denominator.
        cross_entropy: summed token cross-entropy in nats.
        z_loss: summed z-loss.
        norm: global L2 norm of the gradient.
        bad: the micro-batches of this process whose loss is not finite.
    """

    loss: float
    cross_entropy: float
    z_loss: float
    norm: float
    bad: tuple[RowBatch, ...] = ()


def micro_batches(rows: RowBatch, micro_batch_rows: int, number: int) -> list[RowBatch]:
    """Cut a process's rows into `number` micro-batches of at most `micro_batch_rows`; empty ones learn nothing.

    The number must be the same in all processes, because they exchange parameters and gradients in each.
    """
    parts = [rows.slice(start, start + micro_batch_rows) for start in range(0, len(rows), micro_batch_rows)]
    return parts + [rows.slice(0, 1).without_targets()] * (number - len(parts))


def compute_gradients(
    engine: Engine, rows: RowBatch, plan: RowPlan | RowBatch, config: TrainConfig, dropout_seed: int
) -> Gradients:
    """Gradients of one step, accumulated over micro-batches and processes; the same up to summation order for all.

    The denominator is that of all rows, so that rows with few targets weigh what they weigh in one big batch.

    Args:
        engine: the model, as processes share it.
        rows: the rows of this process.
        plan: all rows of the step.
        config: the run's training section.
        dropout_seed: key of the step's dropout masks.
    """
    world, size = engine.world, config.batch.micro_batch_rows
    largest_share = -(-len(plan) // world.size)
    denominator = loss_denominator(config.loss.denominator, plan)
    parts = micro_batches(rows, size, -(-largest_share // size))
    sums = []
    for index, part in enumerate(parts):
        batch = Batch.from_rows(part, world.device, dropout_seed)
        sums.append(engine.backward(batch, denominator, is_last=index == len(parts) - 1))
    # nothing before this waits for the device
    measured = torch.cat([torch.stack(sums).flatten(), engine.squared_norm().reshape(1)]).tolist()
    losses = measured[:-1:3]
    totals = world.sum([sum(losses), sum(measured[1:-1:3]), sum(measured[2:-1:3]), measured[-1]])
    bad = [part for part, value in zip(parts, losses, strict=True) if not math.isfinite(value)]
    loss, cross_entropy, z_loss, squared_norm = totals
    return Gradients(loss, cross_entropy, z_loss, math.sqrt(squared_norm), tuple(bad))


def clip_factor(norm: float, max_norm: float | None) -> float:
    """What gradients of a global norm are multiplied by to have at most `max_norm`, as torch's `clip_grad_norm_`."""
    return 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))


def refuse_non_finite(
    gradients: Gradients, rows: RowBatch, tasks: Sequence[str], step: int, world: World = _ALONE
) -> None:
    """Stop before the optimizer step if the loss or the gradient is not finite.

    Raises:
        NonFiniteError: names the tasks of the micro-batches with a non-finite loss, or of all if only the gradient is.
    """
    if math.isfinite(gradients.loss) and math.isfinite(gradients.norm):
        return
    parts = gradients.bad if not math.isfinite(gradients.loss) else (rows,)
    own = Counter(tasks[task] for part in parts for task in part.example_tasks.tolist())
    names = sum(world.together(lambda: own), Counter[str]())
    listed = ", ".join(f"{name} ({count})" for name, count in names.most_common())
    raise NonFiniteError(
        f"step {step}: the loss is {gradients.loss} and the gradient norm {gradients.norm}; stopped before the "
        f"optimizer step. Tasks of the rows concerned, with their examples: {listed}. A lower optimizer.lr, "
        "train.precision: fp32 or mixture.exclude may help; a changed recipe needs another `output` or `name`."
    )


def refuse_non_finite_state(state: Mapping[str, Any], step: int, world: World = _ALONE) -> None:
    """Stop before a checkpoint is written whose parameters or optimizer state are not finite in some process.

    Rows of the embedding that no later row reads would not show in the loss.

    Raises:
        NonFiniteError: names the first tensor, in all processes.
    """
    found = [name for name in world.together(lambda: first_non_finite(state)) if name]
    if found:
        raise NonFiniteError(
            f"step {step}: {found[0]} holds infinite or undefined values after the optimizer step, so that no "
            "checkpoint of this step is written; earlier ones stay as they are. A lower optimizer.lr, "
            "optimizer.max_grad_norm or train.precision: fp32 may help; a changed recipe needs another `output` or "
            "`name`."
        )
