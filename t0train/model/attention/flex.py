"""The attention backend for GPUs that reads the bias table inside the kernel (torch's FlexAttention).

Scores never leave registers, fully masked tiles are skipped, and the bias costs one read of the small table per score.
The table's gradient is accumulated in float32 by atomic additions, so runs are not bit-equal.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from t0train.model.attention.interface import Attend, Plan
from t0train.model.batch import Batch
from t0train.model.dropout import Positions

_GRAPHS = 64


def plan_flex(batch: Batch, encoder_table: Tensor, decoder_table: Tensor) -> Plan:
    """The flex backend's plan; see `t0train.model.attention.plan`. The block masks are shared by all layers."""
    inputs, targets, sources = batch.input_segments, batch.target_segments, batch.target_sources

    def in_encoder(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return inputs[row, query] == inputs[row, key]

    def in_decoder(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (targets[row, query] == targets[row, key]) & (query >= key)

    def in_cross(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (sources[row, query] == inputs[row, key]) & (inputs[row, key] > 0)  # padding attends to nothing

    def mask(rule: Any, of_queries: Tensor, of_keys: Tensor) -> BlockMask:
        rows, queries = of_queries.shape
        return create_block_mask(rule, rows, None, queries, of_keys.shape[1], device=of_keys.device)

    return Plan(
        Positions.every(inputs),
        Positions.every(targets),
        encoder=_attend(mask(in_encoder, inputs, inputs), encoder_table),
        decoder=_attend(mask(in_decoder, targets, targets), decoder_table),
        cross=_attend(mask(in_cross, targets, inputs), None),
    )


def _attend(block_mask: BlockMask, table: Tensor | None) -> Attend:
    def biased(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert table is not None
        return score + table[head, key - query + table.shape[1] // 2]

    rule = None if table is None else biased

    def attend(query: Tensor, key: Tensor, value: Tensor, weight_mask: Tensor | None) -> Tensor:
        if weight_mask is not None:
            raise ValueError("flex attention cannot drop single attention weights")
        kernel = _kernel(query.device.type)
        heads_first = (states.transpose(1, 2) for states in (query, key, value))
        out: Tensor = kernel(*heads_first, score_mod=rule, block_mask=block_mask, scale=1.0)
        return out.transpose(1, 2)

    return attend


@cache
def _kernel(device: str) -> Any:
    """FlexAttention is fast only when compiled; on a CPU, where only tests run it, it stays uncompiled.

    Each of the three attentions compiles to a graph of its own per shape, with and without gradients. Beyond torch's
    limit of 8 graphs it would fall back to full score matrices with only a warning.
    """
    if device == "cpu":
        return flex_attention
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _GRAPHS)
    return torch.compile(flex_attention, dynamic=False)
