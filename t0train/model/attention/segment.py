"""The attention backend for CPUs: only filled positions are computed, and only within segments.

Hidden states are [tokens, d_model]: padding never enters a layer. Segments of similar length are padded to a common one
and attended to as one batch. The relative bias of each such bucket is sliced once per forward pass from the stack's
small table and shared by the layers; its gradient is one sum over a bucket's pairs in each layer and one over the
table's diagonals at the end.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from t0train.model.attention.interface import MASKED, Attend, Plan
from t0train.model.batch import Batch
from t0train.model.dropout import Positions

Ints = NDArray[np.int64]

# Lengths within this ratio share a bucket: fewer kernel calls against up to 1.35 ** 2 as many scores
_RATIO = 1.35
_SHORTEST = 8  # all lengths up to this one share the first bucket


class Stretches(NamedTuple):
    """Stretches of equal segment number: where they begin among the filled positions, how long they are, their key."""

    starts: Ints
    lengths: Ints
    keys: Ints  # row * 2**32 + segment number


@dataclass(frozen=True)
class Bucket:
    """Pairs of similar lengths: n stretches of queries, each of which attends to one stretch of keys.

    Attributes:
        queries: [n * longest] token in each slot, the zero token where the stretch is shorter.
        keys: [n * longest] the same for keys.
        shape: n, longest stretch of queries, longest stretch of keys.
        mask: added to the scores, broadcastable to [n, queries, keys]; None if every score counts.
    """

    queries: Tensor
    keys: Tensor
    shape: tuple[int, int, int]
    mask: Tensor | None

    def of_queries(self, states: Tensor) -> Tensor:
        """[heads, tokens + 1, d_kv] to [heads, n, longest, d_kv]."""
        return states.index_select(1, self.queries).view(len(states), *self.shape[:2], -1)

    def of_keys(self, states: Tensor) -> Tensor:
        """[heads, tokens + 1, d_kv] to [heads, n, longest, d_kv]."""
        return states.index_select(1, self.keys).view(len(states), self.shape[0], self.shape[2], -1)


@dataclass(frozen=True)
class BucketLayout:
    """The buckets of one kind of attention, and where each token's slot is in all of them laid end to end.

    Attributes:
        buckets: at least one pair each.
        query_slots: [query tokens]; tokens that attend to nothing point at a slot of zeros behind the last one.
        key_slots: [key tokens]; likewise for tokens that no query attends to.
    """

    buckets: tuple[Bucket, ...]
    query_slots: Tensor
    key_slots: Tensor


def plan_segments(batch: Batch, encoder_table: Tensor, decoder_table: Tensor) -> Plan:
    """The segment backend's plan; see `t0train.model.attention.plan`."""
    keep_freed_memory()
    inputs, targets, sources = (
        _runs(segments.cpu().numpy())
        for segments in (batch.input_segments, batch.target_segments, batch.target_sources)
    )
    encoder = _layout(inputs, inputs, causal=False)
    decoder = _layout(targets, targets, causal=True)
    # neighbouring targets that read the same input are one stretch of queries
    return Plan(
        Positions.filled(batch.input_segments),
        Positions.filled(batch.target_segments),
        encoder=_attend(encoder, [_bias(encoder_table, bucket) for bucket in encoder.buckets]),
        decoder=_attend(decoder, [_bias(decoder_table, bucket) for bucket in decoder.buckets]),
        cross=_attend(_layout(sources, inputs, causal=False), None),
    )


@cache
def keep_freed_memory() -> None:
    """Stop glibc from returning freed memory to the kernel, which would zero every page of every temporary again.

    This makes a step 1.6 times as fast. Without glibc (musl, macOS) there is no `mallopt`, and this is a no-op.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # names of <malloc.h>
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def _runs(segments: Ints) -> Stretches:
    """Stretches of [rows, length] segment numbers, in reading order."""
    row, column = segments.nonzero()
    keys = (row.astype(np.int64) << 32) + segments[row, column]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    keys = keys[starts]
    if len(np.unique(keys)) != len(keys):
        raise ValueError("the tokens of a segment must be contiguous, and so must the targets of one input")
    return Stretches(starts, np.diff(starts, append=len(row)), keys)


def _layout(queries: Stretches, keys: Stretches, causal: bool) -> BucketLayout:
    """Pair stretches of the same key and group the pairs by length."""
    _, chosen, partner = np.intersect1d(queries.keys, keys.keys, assume_unique=True, return_indices=True)
    query_starts, query_lengths = queries.starts[chosen], queries.lengths[chosen]
    key_starts, key_lengths = keys.starts[partner], keys.lengths[partner]
    classes = _length_class(query_lengths) * 1000 + _length_class(key_lengths)
    buckets: list[Bucket] = []
    slots = [np.full(int(runs.lengths.sum()), -1, np.int64) for runs in (queries, keys)]
    used = [0, 0]
    for number in np.unique(classes):
        members = classes == number
        sides = [
            _pad(query_starts[members], query_lengths[members], len(slots[0])),
            _pad(key_starts[members], key_lengths[members], len(slots[1])),
        ]
        for side, (tokens, filled) in enumerate(sides):
            slots[side][tokens[filled]] = used[side] + np.flatnonzero(filled)
            used[side] += tokens.size
        (query_tokens, _), (key_tokens, key_filled) = sides
        shape = (len(query_tokens), query_tokens.shape[1], key_tokens.shape[1])
        mask = _mask(key_filled, shape, causal)
        buckets.append(
            Bucket(torch.from_numpy(query_tokens.ravel()), torch.from_numpy(key_tokens.ravel()), shape, mask)
        )
    query_slots, key_slots = (
        torch.from_numpy(np.where(of_side < 0, total, of_side)) for of_side, total in zip(slots, used, strict=True)
    )
    return BucketLayout(tuple(buckets), query_slots, key_slots)


def _length_class(lengths: Ints) -> Ints:
    return np.ceil(np.log(np.maximum(lengths, _SHORTEST) / _SHORTEST) / math.log(_RATIO)).astype(np.int64)


def _pad(starts: Ints, lengths: Ints, zero: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Token of each slot [n, longest], and which slots are filled; the others hold the zero token."""
    offset = np.arange(lengths.max())
    filled = offset < lengths[:, None]
    return np.where(filled, starts[:, None] + offset, zero), filled


def _mask(key_filled: NDArray[np.bool_], shape: tuple[int, int, int], causal: bool) -> Tensor | None:
    if causal:  # no query of a stretch reaches beyond its own end, so this hides the unfilled keys too
        return torch.full(shape[1:], MASKED).triu(1)
    if key_filled.all():
        return None
    return torch.from_numpy(np.where(key_filled, 0, MASKED).astype(np.float32))[:, None, :]


def _bias(table: Tensor, bucket: Bucket) -> Tensor:
    """[heads, length, length] bias of stretches that start together: windows of the table, each a step further left."""
    length = bucket.shape[2]
    middle = table.shape[1] // 2
    return table[:, middle - length + 1 : middle + length].unfold(1, length, 1).flip(1)


def _attend(layout: BucketLayout, biases: list[Tensor] | None) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, weight_mask: Tensor | None) -> Tensor:
        if weight_mask is not None:
            raise ValueError("segment attention cannot drop single attention weights")
        out = _SegmentAttention.apply(query, key, value, layout, *(biases or ()))  # type: ignore[no-untyped-call]
        return cast(Tensor, out)

    return attend


class _SegmentAttention(torch.autograd.Function):
    """(query, key, value [tokens, heads, d_kv], bias of each bucket) -> [query tokens, heads, d_kv]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: BucketLayout, *biases: Tensor) -> Tensor:
        query, key, value = _heads_first(query), _heads_first(key), _heads_first(value)
        outs, weights = [], []
        for index, bucket in enumerate(layout.buckets):
            scores = (bucket.of_queries(query) @ bucket.of_keys(key).mT).float()
            if biases:
                scores += biases[index][:, None]
            if bucket.mask is not None:
                scores += bucket.mask
            weights.append(scores.softmax(-1).to(value.dtype))
            outs.append(weights[-1] @ bucket.of_keys(value))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.layout, ctx.biased = layout, bool(biases)
        return _tokens(outs, layout.query_slots, query)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        layout: BucketLayout = ctx.layout
        grad_out = _heads_first(gradients[0])
        grad_query, grad_key, grad_value, grad_biases = [], [], [], []
        for bucket, weight in zip(layout.buckets, weights, strict=True):
            of_out = bucket.of_queries(grad_out)
            exact = weight.float()
            grad_scores = exact * (of_out @ bucket.of_keys(value).mT).float()
            grad_scores -= exact * grad_scores.sum(-1, keepdim=True)
            if ctx.biased:
                grad_biases.append(grad_scores.sum(1))
            grad_scores = grad_scores.to(query.dtype)
            grad_query.append(grad_scores @ bucket.of_keys(key))
            grad_key.append(grad_scores.mT @ bucket.of_queries(query))
            grad_value.append(weight.mT @ of_out)
        return (
            _tokens(grad_query, layout.query_slots, query),
            _tokens(grad_key, layout.key_slots, key),
            _tokens(grad_value, layout.key_slots, value),
            None,
            *grad_biases,
        )


def _heads_first(states: Tensor) -> Tensor:
    """[tokens, heads, d_kv] to [heads, tokens + 1, d_kv]; the token behind the last one is zero."""
    return functional.pad(states.transpose(0, 1), (0, 0, 0, 1))


def _tokens(parts: list[Tensor], slots: Tensor, like: Tensor) -> Tensor:
    """Slots of all buckets [heads, n, longest, d_kv] back to [tokens, heads, d_kv]."""
    zero = like[:, -1:]
    return torch.cat([*(part.flatten(1, 2) for part in parts), zero], 1).index_select(1, slots).transpose(0, 1)
