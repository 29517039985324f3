"""Parameters of a T5, and the floating-point operations of a packed row.

Matrix products alone count, at 2 FLOP per multiply-add, as if no score were masked and no position were padding: the
numerator of MFU as t0train states it. The usual `6 * parameters * tokens` would be 1.8 times too high, because a token
of an encoder-decoder passes through one of its two stacks.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from t0train.config.architecture import T5Config


def parameter_shapes(model: T5Config) -> Counter[tuple[int, ...]]:
    """How many parameters there are of each shape."""
    d, inner, layers = model.d_model, model.num_heads * model.d_kv, model.num_layers
    shapes: Counter[tuple[int, ...]] = Counter()
    shapes[model.vocab_size, d] += 1 if model.tie_word_embeddings else 2  # embedding, head
    attentions = layers * (1 + 2)  # in encoder and decoder, and from decoder to encoder
    shapes[inner, d] += 3 * attentions  # q, k, v
    shapes[d, inner] += attentions  # o
    shapes[model.d_ff, d] += 2 * layers * (2 if model.is_gated else 1)  # wi_0, wi_1 or wi
    shapes[d, model.d_ff] += 2 * layers  # wo
    shapes[d,] += layers * (2 + 3) + 2  # norms of the sub-layers, and one at the end of each stack
    shapes[model.relative_buckets, model.num_heads] += 2
    return shapes


def parameter_count(model: T5Config) -> int:
    """Number of parameters."""
    return sum(math.prod(shape) * count for shape, count in parameter_shapes(model).items())


def block_parameters(model: T5Config) -> tuple[int, int]:
    """Matrix elements of one encoder block and of one decoder block."""
    d, inner = model.d_model, model.num_heads * model.d_kv
    feed_forward = (3 if model.is_gated else 2) * d * model.d_ff
    return 4 * d * inner + feed_forward, 8 * d * inner + feed_forward


@dataclass(frozen=True)
class RowFlop:
    """FLOP of one packed row's forward pass.

    Attributes:
        encoder: projections and feed-forward of the encoder.
        decoder: the same of the decoder; its cross attention projects keys and values of all *input* positions.
        head: logits.
        attention: scores, and sums weighted by them, of the three attentions.
    """

    encoder: int
    decoder: int
    head: int
    attention: int

    @property
    def forward(self) -> int:
        """All of them."""
        return self.encoder + self.decoder + self.head + self.attention

    @property
    def train(self) -> int:
        """Forward and backward pass, which takes two products for each of the forward pass."""
        return 3 * self.forward


def row_flop(model: T5Config, inputs: int, targets: int) -> RowFlop:
    """FLOP of a row of `inputs` + `targets` positions."""
    d, inner, layers = model.d_model, model.num_heads * model.d_kv, model.num_layers
    encoder_block, decoder_block = block_parameters(model)
    cross_keys_and_values = 2 * d * inner
    score_pairs = inputs**2 + targets**2 + inputs * targets
    return RowFlop(
        encoder=2 * layers * inputs * encoder_block,
        decoder=2 * layers * (targets * (decoder_block - cross_keys_and_values) + inputs * cross_keys_and_values),
        head=2 * targets * d * model.vocab_size,
        attention=4 * layers * inner * score_pairs,
    )
