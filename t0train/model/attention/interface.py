"""What an attention backend gives to the layers: three attention functions and the positions that they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from t0train.model.dropout import Positions

MASKED = -1e9  # the original's value: finite in bfloat16 too, and exp(MASKED - x) is exactly 0

# (query, key, value: [*shape, heads, d_kv]; mask of the weights or None) -> [*shape, heads, d_kv]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Plan:
    """How one batch is computed: the positions of both sides, and the three attentions."""

    inputs: Positions
    targets: Positions
    encoder: Attend
    decoder: Attend
    cross: Attend
