"""Attention over packed rows: visibility, the relative bias, and the choice of a backend.

Visibility: encoder positions see their own segment; decoder positions see their own segment up to themselves; in cross
attention a target sees the input segment that it belongs to. T5's bias depends on key index minus query index alone, so
packing needs no position ids, and the bias of a stack is one small table [heads, 2 * length - 1], gathered once per
forward pass and shared by its layers. Scores are not scaled by d_kv ** -0.5: T5 folds that into its initial weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from t0train.config.resolve import Backend
from t0train.model.attention.dense import plan_dense
from t0train.model.attention.interface import Attend, Plan
from t0train.model.attention.segment import plan_segments
from t0train.model.batch import Batch

__all__ = ["Attend", "Plan", "plan", "relative_buckets"]


def plan(name: Backend, batch: Batch, encoder_table: Tensor, decoder_table: Tensor, dtype: torch.dtype) -> Plan:
    """Prepare a backend for a batch.

    Args:
        name: backend.
        batch: packed rows.
        encoder_table: [heads, 2 * inputs - 1] relative bias of the encoder, float32.
        decoder_table: [heads, 2 * targets - 1] relative bias of the decoder, float32.
        dtype: compute dtype of the layers.
    """
    if name == "segment":
        return plan_segments(batch, encoder_table, decoder_table)
    if name == "flex":
        from t0train.model.attention.flex import plan_flex  # torch's flex_attention is slow to import

        return plan_flex(batch, encoder_table, decoder_table)
    return plan_dense(name, batch, encoder_table, decoder_table, dtype)


def relative_buckets(length: int, buckets: int, max_distance: int, bidirectional: bool, device: torch.device) -> Tensor:
    """[2 * length - 1] bucket of each offset key - query, from -(length - 1) up (Raffel et al. 2020, section 2.1).

    Half of the buckets are for single offsets, the rest grow logarithmically up to `max_distance`. The decoder is
    causal, so it uses all buckets for the past.
    """
    offset = torch.arange(-(length - 1), length, device=device)
    first = torch.zeros_like(offset)
    if bidirectional:
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
