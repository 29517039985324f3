"""The dense attention backends, which compute every position: `eager`, the reference, and torch's fused `sdpa`."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from t0train.model.attention.interface import MASKED, Attend, Plan
from t0train.model.batch import Batch
from t0train.model.dropout import Positions


def square_bias(table: Tensor, queries: int, keys: int) -> Tensor:
    """[heads, 2 * length - 1] table to the bias [heads, queries, keys] of positions that start together."""
    query = torch.arange(queries, device=table.device)
    key = torch.arange(keys, device=table.device)
    return table[:, key[None, :] - query[:, None] + table.shape[1] // 2]


def _visible(queries: Tensor, keys: Tensor, causal: bool) -> Tensor:
    """[rows, 1, queries, keys]: same segment. In self attention padding sees padding, which keeps it finite."""
    visible = queries[:, None, :, None] == keys[:, None, None, :]
    return visible.tril() if causal else visible


def eager(visible: Tensor, bias: Tensor | None) -> Attend:
    """The reference implementation: full masks and full weights.

    Args:
        visible: [rows, 1, queries, keys].
        bias: [heads, queries, keys] in float32, or None.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, weight_mask: Tensor | None) -> Tensor:
        scores = torch.einsum("rqhd,rkhd->rhqk", query, key).float()
        if bias is not None:
            scores = scores + bias
        weights = scores.masked_fill(~visible, MASKED).softmax(-1)
        weights = weights.masked_fill(~visible, 0).to(value.dtype)  # a target without inputs attends to nothing
        if weight_mask is not None:
            weights = weights * weight_mask
        return torch.einsum("rhqk,rkhd->rqhd", weights, value)

    return attend


def sdpa(visible: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Attend:
    """Fused attention of torch over one additive mask, built once and shared by the layers.

    The kernels are listed explicitly: torch might otherwise choose cuDNN's, which has no gradient for the bias and
    reads float32 masks as bfloat16. On a CPU, torch falls back to its math kernel where the bias needs a gradient.

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
    """The plan of a backend that computes every position; see `t0train.model.attention.plan`."""
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
