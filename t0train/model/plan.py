"""From the name of an attention back end to what the layers do with a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from t0train.config.resolve import BackEnd
from t0train.model.attention import Plan, plan_dense
from t0train.model.batch import Batch
from t0train.model.segment import plan_segments


def plan(name: BackEnd, batch: Batch, encoder_table: Tensor, decoder_table: Tensor, dtype: torch.dtype) -> Plan:
    """Prepare a back end for a batch.

    Args:
        name: back end.
        batch: packed rows.
        encoder_table: [heads, 2 * inputs - 1] relative bias of the encoder, float32.
        decoder_table: [heads, 2 * targets - 1] relative bias of the decoder, float32.
        dtype: in which the layers compute.
    """
    if name == "segment":
        return plan_segments(batch, encoder_table, decoder_table)
    if name == "flex":
        from t0train.model.flex import plan_flex  # torch's part of it takes long to import

        return plan_flex(batch, encoder_table, decoder_table)
    return plan_dense(name, batch, encoder_table, decoder_table, dtype)
