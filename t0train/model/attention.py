"""Who sees whom in a packed row, the relative bias, and the attention back ends.

Visibility: encoder positions see their segment; decoder positions see their segment up to themselves; in cross
attention a target sees the input segment that it reads. T5's bias depends on key index minus query index alone, so
packing needs no position ids, and the bias of a stack is one small table [heads, 2 * length - 1], gathered once per
forward pass and shared by its layers. Scores are not scaled by d_kv ** -0.5: T5 folds that into its initial weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from t0train.model.batch import Batch
from t0train.model.dropout import Positions

MASKED = -1e9  # the original's value: finite in bfloat16 too, and exp(MASKED - x) is exactly 0

# (query, key, value: [*shape, heads, d_kv]; mask of the weights or None) -> [*shape, heads, d_kv]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Plan:
    """What the layers need to know of a batch: the positions that they compute, and the three attentions."""

    inputs: Positions
    targets: Positions
    encoder: Attend
    decoder: Attend
    cross: Attend


def relative_buckets(length: int, buckets: int, max_distance: int, both_ways: bool, device: torch.device) -> Tensor:
    """[2 * length - 1] bucket of each offset key - query, from -(length - 1) up (Raffel et al. 2020, section 2.1).

    Half of the buckets are for single offsets, the rest grow logarithmically up to `max_distance`. The decoder looks
    back only, so it spends all buckets on that side.
    """
    offset = torch.arange(-(length - 1), length, device=device)
    first = torch.zeros_like(offset)
    if both_ways:
        buckets //= 2
        first = (offset > 0).long() * buckets
        distance = offset.abs()
    else:
        distance = (-offset).clamp(min=0)
    exact = buckets // 2
    # max(distance, exact) keeps log() finite where the exact bucket is taken anyway
    ratio = torch.log(distance.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    grown = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
    return first + torch.where(distance < exact, distance, grown)


def square_bias(table: Tensor, queries: int, keys: int) -> Tensor:
    """[heads, 2 * length - 1] table to the bias [heads, queries, keys] of positions that start together."""
    query = torch.arange(queries, device=table.device)
    key = torch.arange(keys, device=table.device)
    return table[:, key[None, :] - query[:, None] + table.shape[1] // 2]


def _visible(queries: Tensor, keys: Tensor, causal: bool) -> Tensor:
    """[rows, 1, queries, keys]: same segment. Padding sees padding in self attention, which keeps it finite."""
    visible = queries[:, None, :, None] == keys[:, None, None, :]
    return visible.tril() if causal else visible


def eager(visible: Tensor, bias: Tensor | None) -> Attend:
    """The oracle: full masks and full weights.

    Args:
        visible: [rows, 1, queries, keys].
        bias: [heads, queries, keys] in float32, or None.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, weight_mask: Tensor | None) -> Tensor:
        scores = torch.einsum("rqhd,rkhd->rhqk", query, key).float()
        if bias is not None:
            scores = scores + bias
        weights = scores.masked_fill(~visible, MASKED).softmax(-1)
        weights = weights.masked_fill(~visible, 0).to(value.dtype)  # a target without inputs reads nothing
        if weight_mask is not None:
            weights = weights * weight_mask
        return torch.einsum("rhqk,rkhd->rqhd", weights, value)

    return attend


def sdpa(visible: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Attend:
    """Fused attention of torch over one additive mask, built once and shared by the layers.

    The kernels are named: the default choice may be cuDNN's, which has no gradient for the bias and reads float32 masks
    as bfloat16. On a CPU, torch falls back to plain maths where the bias needs a gradient.

    Args:
        visible: [rows, 1, queries, keys].
        bias: [heads, queries, keys] in float32, or None.
        dtype: of queries, keys and values.
    """
    mask = torch.zeros_like(visible, dtype=torch.float32) if bias is None else bias[None]
    mask = mask.masked_fill(~visible, MASKED).to(dtype)
    read = visible.any(-1).transpose(1, 2)[..., None]  # [rows, queries, 1, 1]
    kernels = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

    def attend(query: Tensor, key: Tensor, value: Tensor, weight_mask: Tensor | None) -> Tensor:
        if weight_mask is not None:
            raise ValueError("sdpa cannot drop single attention weights")
        of_heads = mask.expand(-1, query.shape[2], -1, -1)
        with sdpa_kernel(kernels):
            out = torch.nn.functional.scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), of_heads, scale=1.0
            )
        return out.transpose(1, 2) * read

    return attend


def plan_dense(
    name: Literal["eager", "sdpa"], batch: Batch, encoder_table: Tensor, decoder_table: Tensor, dtype: torch.dtype
) -> Plan:
    """The plan of a back end that computes every position; see `t0train.model.plan.plan`."""
    dense = eager if name == "eager" else partial(sdpa, dtype=dtype)
    inputs, targets = batch.input_segments, batch.target_segments
    cross = _visible(batch.target_sources, inputs, causal=False) & (inputs > 0)[:, None, None, :]
    return Plan(
        Positions.every(inputs),
        Positions.every(targets),
        encoder=dense(_visible(inputs, inputs, causal=False), square_bias(encoder_table, *[inputs.shape[1]] * 2)),
        decoder=dense(_visible(targets, targets, causal=True), square_bias(decoder_table, *[targets.shape[1]] * 2)),
        cross=dense(cross, None),
    )
