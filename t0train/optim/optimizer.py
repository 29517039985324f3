"""The optimizer that a configuration asks for, and its learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from t0train.config.schema import OptimizerConfig
from t0train.optim.adafactor import Adafactor


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of a step.

    Warm-up rises linearly to `lr`, which step `warmup - 1` has. Then, with t steps after the warm-up:
    `constant` stays; `linear` falls along the line that reaches `final_fraction * lr` at step `steps`, one after the
    last; `inverse_sqrt` is `lr * sqrt(w / (w + t))` with w = max(warmup, 1).

    Args:
        config: the optimizer's section of a run.
        step: number of steps done before this one (0 for the first).
        steps: length of the run.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    after = step - config.warmup
    if config.schedule == "linear":
        share = min(1.0, after / max(1, steps - config.warmup))
        return config.lr * (1.0 - (1.0 - config.final_fraction) * share)
    if config.schedule == "inverse_sqrt":
        timescale = max(config.warmup, 1)
        return config.lr * math.sqrt(timescale / (timescale + after))
    return config.lr


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimizer that `config` asks for, over the parameters that want gradients.

    AdamW's weight decay leaves out norm scales (one dimension), as is usual.

    Args:
        named_parameters: `model.named_parameters()`.
        config: the optimizer's section of a run.

    Raises:
        UserError: see `Adafactor`.
    """
    named = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    if config.name == "adafactor":
        return Adafactor(
            named,
            lr=config.lr,
            preset=config.preset,
            min_dim_size_to_factor=config.min_dim_size_to_factor,
            clip_threshold=config.clip_threshold,
            step_offset=config.step_offset,
        )
    matrices = [pair for pair in named if pair[1].ndim > 1]
    scales = [pair for pair in named if pair[1].ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": scales, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, betas=config.betas)
