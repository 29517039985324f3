"""From a run's configuration to its optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from t0train.config.schema import OptimizerConfig
from t0train.optim.adafactor import Adafactor


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
