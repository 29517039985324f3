"""What `auto` means in a configuration, what does not go together, and what can hardly be meant.

Kept out of `t0train.model` and `t0train.distributed` so that `t0train estimate` need not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from t0train.config.schema import ModelConfig, RunConfig, TrainConfig
from t0train.core.errors import UserError, nearest
from t0train.core.run_folder import RunFolder

Backend = Literal["eager", "segment", "sdpa", "flex"]
Strategy = Literal["single", "ddp", "fsdp", "hsdp", "deepspeed"]

BACKENDS: tuple[str, ...] = get_args(ModelConfig.model_fields["attention"].annotation)


def run_folder(config: RunConfig) -> RunFolder:
    """`output`, else `runs/<name>` of the working directory, and `runs/<name>-seed<seed>` for other seeds than 0."""
    seed = f"-seed{config.seed}" if config.seed else ""
    return RunFolder(Path(config.output or f"runs/{config.name}{seed}"))


def check_attention(name: str, drops_weights: bool) -> None:
    """Refuse an attention backend that does not exist or cannot do the model's dropout.

    Args:
        name: `model.attention`.
        drops_weights: whether dropout takes single attention weights (dropout_style: elementwise).

    Raises:
        UserError: it is so.
    """
    if name not in BACKENDS:
        raise UserError(f"there is no attention backend {name!r}; {nearest(name, BACKENDS)}")
    if name in ("segment", "sdpa", "flex") and drops_weights:
        raise UserError(
            f"attention: {name} cannot drop single attention weights (dropout_style: elementwise); use "
            "attention: eager or auto, dropout_style: mesh, or dropout: 0."
        )


def resolve_attention(name: str, drops_weights: bool, device: str, requires_grad: bool) -> Backend:
    """The attention backend; `auto` is eager where single weights are dropped, else sdpa on a GPU, segment on a CPU.

    sdpa stays the choice on a GPU until flex is measured to be faster there.

    Args:
        name: one that `check_attention` lets pass.
        drops_weights: whether single attention weights are dropped now.
        device: `cpu` or `cuda`.
        requires_grad: whether gradients are wanted.

    Raises:
        UserError: `segment` on another device than a CPU, or `flex` to be trained on a CPU.
    """
    if name == "flex" and device == "cpu" and requires_grad:
        raise UserError("attention: flex has no gradient on a CPU; use segment or auto there.")
    if name == "segment" and device != "cpu":
        raise UserError(f"attention: segment runs on a CPU, but the model is on {device}; use sdpa or auto.")
    if name != "auto":
        return cast(Backend, name)
    if drops_weights:
        return "eager"
    return "segment" if device == "cpu" else "sdpa"


def check_recomputation(kind: str, attention: str) -> None:
    """Refuse `train.activation_checkpointing` where the attention backend cannot do it.

    Raises:
        UserError: `selective` with `flex`, which is one opaque kernel to it.
    """
    if kind == "selective" and attention == "flex":
        raise UserError(
            "train.activation_checkpointing: selective looks at single operations, but model.attention: flex is "
            "one compiled kernel; use block, or model.attention: sdpa."
        )


def resolve_strategy(train: TrainConfig, processes: int) -> Strategy:
    """How processes (one for each GPU) share the model; `auto` is `single` for one process and `fsdp` for several.

    Raises:
        UserError: `single` for several processes, or rows that cannot be shared out.
    """
    if processes < 1:
        raise UserError(f"there are {processes} processes, but a run has at least one.")
    if train.strategy == "single" and processes > 1:
        raise UserError(f"train.strategy is single, but there are {processes} processes; use fsdp, ddp or auto.")
    rows, examples = train.batch.rows, train.batch.examples
    if rows is not None and rows % processes:
        few = f"more processes ({processes}) than rows" if processes > rows else f"{processes} processes"
        raise UserError(
            f"train.batch.rows is {rows:,}, but there are {few}, which do not divide it; take as many processes as "
            "divide it, or change it (another recipe)."
        )
    if examples is not None and examples < processes:
        raise UserError(f"train.batch.examples is {examples}, but there are {processes} processes; take fewer.")
    if train.strategy == "auto":
        return "fsdp" if processes > 1 else "single"
    return train.strategy


def resolve_replicas(train: TrainConfig, processes: int, of_a_machine: int) -> int:
    """How many replicas of the model hsdp keeps: `train.replicas`, or one on each machine.

    Raises:
        UserError: the processes cannot be divided among them.
    """
    replicas = train.replicas or max(processes // of_a_machine, 1)
    if processes % replicas or replicas in (1, processes):
        raise UserError(
            f"train.strategy is hsdp with {replicas} replicas of the model over {processes} processes; "
            "train.replicas must divide them, with at least 2 replicas of at least 2 processes each "
            "(one replica is fsdp, one process each ddp)."
        )
    return replicas


@dataclass(frozen=True)
class Preset:
    """Which second moments are factored: the only difference between implementations of Adafactor that matters here."""

    min_dim_size_to_factor: int
    last_two: bool


PRESETS = {
    # mesh_tensorflow/optimize.py: the two longest dimensions, if both reach 128 (so not the relative bias tables)
    "t5": Preset(min_dim_size_to_factor=128, last_two=False),
    # transformers/optimization.py: every tensor of two or more dimensions, over the last two
    "hf": Preset(min_dim_size_to_factor=1, last_two=True),
}


def factored_axes(shape: Sequence[int], min_dim_size: int, last_two: bool) -> tuple[int, int] | None:
    """The two axes (row, column) over which a second moment is factored, or None if it is stored in full.

    Args:
        shape: shape of the parameter.
        min_dim_size: both axes must be at least this long.
        last_two: take the last two axes (transformers); otherwise the two longest (Mesh TensorFlow, optax).

    Returns:
        The axis that indexes the row factor, then the one that indexes the column factor.
    """
    if len(shape) < 2:
        return None
    ranked = range(len(shape)) if last_two else sorted(range(len(shape)), key=lambda axis: shape[axis])
    row, column = ranked[-2], ranked[-1]
    return (row, column) if min(shape[row], shape[column]) >= min_dim_size else None


def config_remarks(config: RunConfig) -> list[str]:
    """Sentences that a command prints before it goes on; none for a configuration without such values."""
    found = []
    optimizer, steps = config.optimizer, config.train.steps
    if optimizer.warmup > steps:
        highest = optimizer.lr * steps / optimizer.warmup
        found.append(
            f"optimizer.warmup is {optimizer.warmup:,} and the run has {steps:,} steps: the learning rate ends at "
            f"{highest:g} and never reaches optimizer.lr ({optimizer.lr:g})"
        )
    if config.data.max_targets == 1:
        found.append("data.max_targets is 1: nothing is left of a target but the </s> that closes it")
    if config.data.max_inputs == 1:
        found.append("data.max_inputs is 1: nothing is left of an input but its first token")
    return found
