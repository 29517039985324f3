"""Activation checkpointing: recompute a block's activations in the backward pass instead of storing them.

Dropout masks are functions of the row, so no random state has to be saved and restored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "block", "selective"]

_aten = torch.ops.aten
# Projections and fused attention: most of the FLOP, for outputs as large as the hidden states. Batched products (bmm)
# are left out: they are the scores of an unfused attention and grow with the square of the length.
_SAVED = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def checkpointed(kind: Recompute, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """`function(*arguments)`, storing little for the backward pass.

    Args:
        kind: `none` stores all activations; `block` only the arguments; `selective` also the outputs of matrix products
            with weights and of fused attention, so that only what is cheap is recomputed.
        function: deterministic, returns one tensor.
        arguments: of `function`.
    """
    if kind == "none" or not torch.is_grad_enabled():
        return function(*arguments)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return cast(Tensor, checkpoint(function, *arguments, **options))


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _SAVED else CheckpointPolicy.PREFER_RECOMPUTE
