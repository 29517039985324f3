"""Dropout without state: a mask is a hash of (seed, row, site, position, channel).

So micro-batching, activation checkpointing, resuming and the number of ranks never change a mask. Styles:

`mesh`: the original's (mesh_tensorflow/transformer: masks shared along the length axis). Hidden masks have the shape
(row, channel); attention masks (row, head, key) are shared by all queries, which is the same as masking the *value*
vectors: sum_k w_qk m_k v_k needs no access to the weights w, so every attention kernel can do it.

`elementwise`: an independent draw for each element, as in Hugging Face's T5.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from t0train.config.architecture import T5Config
from t0train.model.batch import Batch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: the increment of splitmix64
_BITS = 24  # bits of a hash that are compared with the rate: exact in float32 and in int64


def mix64(values: Tensor) -> Tensor:
    """`t0train.core.hashing.mix64` on int64 tensors (Steele et al. 2014): each input bit flips half the output bits."""
    values = (values ^ _shift(values, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    values = (values ^ _shift(values, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical right shift: int64's own is arithmetic."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def chain(key: Tensor, *parts: Tensor | int) -> Tensor:
    """Fold further parts of a key into hashes, broadcasting."""
    for part in parts:
        step = (part + 1) * _GOLDEN
        key = mix64(key + (step if isinstance(step, Tensor) else _wrap(step)))
    return key


def _wrap(value: int) -> int:
    """A Python integer wrapped to int64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


@dataclass(frozen=True)
class Positions:
    """The positions of one side of a batch that the layers compute: hidden states are [*shape, d_model].

    Either every position ([rows, length], `row` [rows, 1], `column` [length]), or the filled ones alone
    ([tokens], `row` and `column` [tokens]). Indexing something per row with `row` broadcasts it over the states.
    """

    row: Tensor
    column: Tensor
    rows: int
    length: int

    @classmethod
    def every(cls, segments: Tensor) -> Positions:
        """All positions of [rows, length] segments."""
        rows, length = segments.shape
        row = torch.arange(rows, device=segments.device)[:, None]
        return cls(row, torch.arange(length, device=segments.device), rows, length)

    @classmethod
    def filled(cls, segments: Tensor) -> Positions:
        """The positions of [rows, length] segments that are not padding, row by row."""
        row, column = segments.nonzero(as_tuple=True)
        return cls(row, column, *segments.shape)

    def take(self, values: Tensor) -> Tensor:
        """[rows, length] to [*shape]."""
        return values if self.row.ndim == 2 else values[self.row, self.column]

    def spread(self, states: Tensor) -> Tensor:
        """[*shape, d_model] back to [rows, length, d_model], zeros on padding that was not computed."""
        if self.row.ndim == 2:
            return states
        whole = states.new_zeros(self.rows * self.length, states.shape[-1])
        whole = whole.index_copy(0, self.row * self.length + self.column, states)
        return whole.view(self.rows, self.length, -1)


class Dropout:
    """The masks of one forward pass."""

    def __init__(self, config: T5Config, batch: Batch, training: bool) -> None:
        self.rate = config.dropout if training else 0.0
        self.elementwise = config.dropout_style == "elementwise"
        self.row_keys = chain(torch.full_like(batch.row_ids, batch.seed % (1 << 63)), batch.row_ids)

    def of_block(self, site: int) -> Dropout:
        """The masks of one block; sites are numbered alike in every block."""
        other = copy(self)
        other.row_keys = chain(self.row_keys, site)
        return other

    def hidden(self, states: Tensor, site: int, positions: Positions) -> Tensor:
        """Drop channels of hidden states [*shape, channels]."""
        if self.rate == 0:
            return states
        return states * self.hidden_mask(states.shape[-1], site, positions, states.dtype)

    def hidden_mask(self, channels: int, site: int, positions: Positions, dtype: torch.dtype) -> Tensor:
        """Mask of hidden states: [rows, 1, channels] or [tokens, channels] (mesh), [*shape, channels] (elementwise)."""
        channel = torch.arange(channels, device=self.row_keys.device)
        if not self.elementwise:
            return self._mask(chain(self.row_keys, site)[:, None], channel, dtype)[positions.row]
        key = chain(chain(self.row_keys, site)[positions.row], positions.column)
        return self._mask(key[..., None], channel, dtype)

    def value_mask(self, heads: int, site: int, positions: Positions, dtype: torch.dtype) -> Tensor | None:
        """Mesh attention dropout: [*shape, heads] for the value vectors; None if nothing is dropped in this way."""
        if self.rate == 0 or self.elementwise:
            return None
        key = chain(chain(self.row_keys, site)[positions.row], positions.column)
        return self._mask(key[..., None], torch.arange(heads, device=key.device), dtype)

    def weight_mask(self, heads: int, site: int, queries: int, keys: int, dtype: torch.dtype) -> Tensor | None:
        """Elementwise attention dropout: [rows, heads, queries, keys]; None if nothing is dropped in this way."""
        if self.rate == 0 or not self.elementwise:
            return None
        device = self.row_keys.device
        key = chain(chain(self.row_keys, site)[:, None], torch.arange(heads * queries, device=device))
        key = key.view(-1, heads, queries, 1)
        return self._mask(key, torch.arange(keys, device=device), dtype)

    def _mask(self, key: Tensor, channel: Tensor, dtype: torch.dtype) -> Tensor:
        """1 / (1 - rate) where kept, 0 where dropped, in the activations' dtype as in the original."""
        kept = _shift(chain(key, channel), 64 - _BITS) >= round(self.rate * (1 << _BITS))
        return kept.to(dtype) * (1 / (1 - self.rate))
