"""torch.compile, block by block.

All blocks of a stack share one graph: they differ only in parameters and dropout keys, which are tensors. Packed rows
have fixed shapes, so nothing is recompiled after the first step; `graph_count` shows whether it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from t0train.core.errors import UserError
from t0train.model.t5 import T5


def compile_blocks(model: T5, device: torch.device, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks of a model that will run on `device`. Call it before the model is sharded.

    Args:
        model: changed in place; its parameters keep their names.
        device: determines the attention backend.
        backend: of torch.compile.

    Raises:
        UserError: the attention backend is `segment`, whose shapes depend on the data.
    """
    if model.backend(device, requires_grad=True) == "segment":
        raise UserError(
            "train.compile needs fixed shapes, but model.attention: segment (auto on a CPU) computes filled positions "
            "alone, which differ from batch to batch. Use model.attention: sdpa or eager, or leave train.compile off."
        )
    for block in model.blocks:
        block.forward = torch.compile(block.forward, backend=backend)  # type: ignore[method-assign]


def graph_count() -> int:
    """Graphs compiled so far by this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
