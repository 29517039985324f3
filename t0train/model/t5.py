"""T5 for packed rows, with the parameter names of Hugging Face's T5ForConditionalGeneration.

Differences from that class: three attention masks instead of one, dropout masks that are functions of the row, and a
head that is tied only where the model is (T5 1.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from t0train.config.architecture import T5Config
from t0train.config.resolve import Backend, check_attention, check_recomputation, resolve_attention
from t0train.model.activation_checkpointing import Recompute, checkpointed
from t0train.model.attention import Attend, Plan, plan, relative_buckets
from t0train.model.batch import Batch
from t0train.model.dropout import Dropout, Positions
from t0train.model.weight_files import LoadReport


class Layer(nn.Module):
    """A module that returns one tensor."""

    __call__: Callable[..., Tensor]


class Linear(nn.Linear):
    """A projection; T5 has no biases."""

    __call__: Callable[..., Tensor]

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)


class RMSNorm(Layer):
    """Scale by the root mean square, computed in float32; no mean, no bias."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        """[..., channels], dtype kept."""
        return cast(Tensor, _RMSNorm.apply(states, self.weight, self.eps))  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    """For the gradient it saves the input in its own dtype and one float32 per position, not two float32 copies."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = states.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(states, scale, weight)
        return (exact * scale * weight).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        states, scale, weight = ctx.saved_tensors
        normed = states.float() * scale
        gradient = gradients[0].float()
        grad_weight = (gradient * normed).flatten(0, -2).sum(0).to(weight.dtype)
        gradient = gradient * weight
        along = (gradient * normed).mean(-1, keepdim=True)
        return ((gradient - normed * along) * scale).to(states.dtype), grad_weight, None


class Attention(Layer):
    """Multi-head attention without biases and without scaling."""

    def __init__(self, config: T5Config, relative_bias: bool, sites: Iterator[int]) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.q = Linear(config.d_model, inner)
        self.k = Linear(config.d_model, inner)
        self.v = Linear(config.d_model, inner)
        self.o = Linear(inner, config.d_model)
        if relative_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_buckets, config.num_heads)
        self.site = next(sites)

    def forward(self, states: Tensor, memory: Tensor, attend: Attend, keys: Positions, drop: Dropout) -> Tensor:
        """Queries from `states` attend to `memory`, whose positions are `keys`."""
        query, key, value = (
            projected.view(*projected.shape[:-1], self.heads, -1)
            for projected in (self.q(states), self.k(memory), self.v(memory))
        )
        value_mask = drop.value_mask(self.heads, self.site, keys, value.dtype)
        if value_mask is not None:
            value = value * value_mask[..., None]
        weight_mask = drop.weight_mask(self.heads, self.site, states.shape[-2], memory.shape[-2], value.dtype)
        return self.o(attend(query, key, value, weight_mask).flatten(-2))


class SelfAttentionLayer(Layer):
    """Norm, self attention, dropout, residual."""

    def __init__(self, config: T5Config, relative_bias: bool, sites: Iterator[int]) -> None:
        super().__init__()
        self.SelfAttention = Attention(config, relative_bias, sites)
        self.layer_norm = RMSNorm(config.d_model, config.eps)
        self.site = next(sites)

    def forward(self, states: Tensor, attend: Attend, positions: Positions, drop: Dropout) -> Tensor:
        """[*shape, d_model] to the same."""
        normed = self.layer_norm(states)
        return states + drop.hidden(self.SelfAttention(normed, normed, attend, positions, drop), self.site, positions)


class CrossAttentionLayer(Layer):
    """Norm, attention to the encoder's output, dropout, residual."""

    def __init__(self, config: T5Config, sites: Iterator[int]) -> None:
        super().__init__()
        self.EncDecAttention = Attention(config, relative_bias=False, sites=sites)
        self.layer_norm = RMSNorm(config.d_model, config.eps)
        self.site = next(sites)

    def forward(self, states: Tensor, memory: Tensor, plan: Plan, drop: Dropout) -> Tensor:
        """[*targets, d_model] and [*inputs, d_model] to [*targets, d_model]."""
        out = self.EncDecAttention(self.layer_norm(states), memory, plan.cross, plan.inputs, drop)
        return states + drop.hidden(out, self.site, plan.targets)


class FeedForward(Layer):
    """`wo(gelu(wi_0 x) * wi_1 x)` with gelu's tanh form (1.1), or `wo(relu(wi x))` (1.0); dropout before `wo`."""

    def __init__(self, config: T5Config, sites: Iterator[int]) -> None:
        super().__init__()
        if config.is_gated:
            self.wi_0 = Linear(config.d_model, config.d_ff)
            self.wi_1 = Linear(config.d_model, config.d_ff)
        else:
            self.wi = Linear(config.d_model, config.d_ff)
        self.wo = Linear(config.d_ff, config.d_model)
        self.is_gated = config.is_gated
        self.site = next(sites)

    def forward(self, states: Tensor, positions: Positions, drop: Dropout) -> Tensor:
        """[*shape, d_model] to the same."""
        if self.is_gated:
            inner = functional.gelu(self.wi_0(states), approximate="tanh") * self.wi_1(states)
        else:
            inner = functional.relu(self.wi(states))
        return self.wo(drop.hidden(inner, self.site, positions))


class FeedForwardLayer(Layer):
    """Norm, feed-forward, dropout, residual."""

    def __init__(self, config: T5Config, sites: Iterator[int]) -> None:
        super().__init__()
        self.DenseReluDense = FeedForward(config, sites)
        self.layer_norm = RMSNorm(config.d_model, config.eps)
        self.site = next(sites)

    def forward(self, states: Tensor, positions: Positions, drop: Dropout) -> Tensor:
        """[*shape, d_model] to the same."""
        out = self.DenseReluDense(self.layer_norm(states), positions, drop)
        return states + drop.hidden(out, self.site, positions)


class Block(Layer):
    """One layer of a stack.

    Dropout sites are numbered alike in every block; the stack keys them by `site`. So all blocks compute the same
    function of their tensors, which is compiled once.
    """

    layer: nn.ModuleList

    def __init__(self, site: int) -> None:
        super().__init__()
        self.site = site
        self.recompute: Recompute = "none"

    def forward(self, *arguments: Any) -> Tensor:
        """`compute` under activation checkpointing, inside the module: FSDP's hooks see a single forward pass."""
        return checkpointed(self.recompute, self.compute, *arguments)

    def compute(self, *arguments: Any) -> Tensor:
        """The block without activation checkpointing."""
        raise NotImplementedError


class EncoderBlock(Block):
    """Self attention and feed-forward."""

    def __init__(self, config: T5Config, relative_bias: bool, site: int) -> None:
        super().__init__(site)
        sites = count()
        self.layer = nn.ModuleList([SelfAttentionLayer(config, relative_bias, sites), FeedForwardLayer(config, sites)])

    def compute(self, states: Tensor, plan: Plan, drop: Dropout) -> Tensor:
        """[*inputs, d_model] to the same."""
        attention, feed_forward = cast(Iterable[Layer], self.layer)
        states = attention(states, plan.encoder, plan.inputs, drop)
        return feed_forward(states, plan.inputs, drop)


class DecoderBlock(Block):
    """Self attention, attention to the encoder's output, and feed-forward."""

    def __init__(self, config: T5Config, relative_bias: bool, site: int) -> None:
        super().__init__(site)
        sites = count()
        self.layer = nn.ModuleList(
            [
                SelfAttentionLayer(config, relative_bias, sites),
                CrossAttentionLayer(config, sites),
                FeedForwardLayer(config, sites),
            ]
        )

    def compute(self, states: Tensor, memory: Tensor, plan: Plan, drop: Dropout) -> Tensor:
        """[*targets, d_model] and [*inputs, d_model] to [*targets, d_model]."""
        attention, cross, feed_forward = cast(Iterable[Layer], self.layer)
        states = attention(states, plan.decoder, plan.targets, drop)
        states = cross(states, memory, plan, drop)
        return feed_forward(states, plan.targets, drop)


class Stack(Layer):
    """The blocks of one side, with dropout at both ends and a final norm."""

    def __init__(self, config: T5Config, block: type[EncoderBlock | DecoderBlock], sites: Iterator[int]) -> None:
        super().__init__()
        self.sites = (next(sites), next(sites))
        self.block = nn.ModuleList([block(config, index == 0, next(sites)) for index in range(config.num_layers)])
        self.final_layer_norm = RMSNorm(config.d_model, config.eps)
        self.config = config
        self.bidirectional = block is EncoderBlock

    @property
    def bias_embedding(self) -> nn.Embedding:
        """The relative bias by bucket and head: held by the first block, shared by all."""
        first = cast(SelfAttentionLayer, cast(EncoderBlock | DecoderBlock, self.block[0]).layer[0])
        return first.SelfAttention.relative_attention_bias

    def bias_table(self, length: int) -> Tensor:
        """[heads, 2 * length - 1] relative bias by offset key - query, float32."""
        table = self.bias_embedding
        buckets = relative_buckets(
            length,
            self.config.relative_buckets,
            self.config.relative_max_distance,
            self.bidirectional,
            table.weight.device,
        )
        biases: Tensor = table(buckets)  # called as a module, so that sharded parameters are gathered
        return biases.float().T.contiguous()

    def forward(self, states: Tensor, positions: Positions, drop: Dropout, *context: Any) -> Tensor:
        """Embedded ids [*shape, d_model] to hidden states; `context` goes to every block."""
        states = drop.hidden(states, self.sites[0], positions)
        for block in cast(Iterable[Block], self.block):
            states = block(states, *context, drop.of_block(block.site))
        return drop.hidden(self.final_layer_norm(states), self.sites[1], positions)


class T5(nn.Module):
    """Encoder-decoder over packed rows.

    Args:
        config: architecture.
        attention: the backend, one of `auto`, `eager`, `segment`, `sdpa`, `flex`.
    """

    def __init__(self, config: T5Config, attention: str = "auto") -> None:
        super().__init__()
        sites = count()
        self.config = config
        check_attention(attention, config.drops_weights)
        self.attention = attention
        self.report: LoadReport | None = None  # of the weights, if they were loaded
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, EncoderBlock, sites)
        self.decoder = Stack(config, DecoderBlock, sites)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.d_model, config.vocab_size)

    @property
    def blocks(self) -> list[Block]:
        """The layers of both stacks, the encoder's first."""
        return [*cast(Iterable[Block], self.encoder.block), *cast(Iterable[Block], self.decoder.block)]

    def backend(self, device: torch.device, requires_grad: bool) -> Backend:
        """The attention backend that the model uses on a device in its current mode (training or not).

        Raises:
            UserError: the configured one does not run there.
        """
        drops_weights = self.training and self.config.drops_weights
        return resolve_attention(self.attention, drops_weights, device.type, requires_grad)

    def checkpoint_activations(self, kind: Recompute) -> None:
        """Checkpoint the activations of every block; see `t0train.model.activation_checkpointing.checkpointed`.

        Raises:
            UserError: the attention backend does not support it.
        """
        check_recomputation(kind, self.attention)
        for block in self.blocks:
            block.recompute = kind

    @property
    def head_weight(self) -> Tensor:
        """[vocab, d_model] weights that turn hidden states into logits."""
        return self.shared.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def head_scale(self) -> float:
        """Factor on the hidden states before the head: d_model ** -0.5 where the embedding serves as head (T5 1.0)."""
        return self.config.d_model**-0.5 if self.config.tie_word_embeddings else 1.0

    def forward(self, batch: Batch) -> Tensor:
        """Logits [rows, targets, vocab]; `loss` and `token_scores` do not need them all at once."""
        return functional.linear(self.decode_states(batch) * self.head_scale, self.head_weight)

    def decode_states(self, batch: Batch) -> Tensor:
        """The decoder's output [rows, targets, d_model], before the head; its values on padding are undefined."""
        backend = self.backend(self.shared.weight.device, torch.is_grad_enabled())
        tables = (
            self.encoder.bias_table(batch.input_ids.shape[1]),
            self.decoder.bias_table(batch.decoder_input_ids.shape[1]),
        )
        layout = plan(backend, batch, *tables, self._compute_dtype())
        drop = Dropout(self.config, batch, self.training)
        memory = self.encoder(self._embed(batch.input_ids, layout.inputs), layout.inputs, drop, layout)
        targets = self._embed(batch.decoder_input_ids, layout.targets)
        return layout.targets.spread(self.decoder(targets, layout.targets, drop, memory, layout))

    def _embed(self, ids: Tensor, positions: Positions) -> Tensor:
        """Under autocast the residual stream has the compute dtype from here on, as the original's activations had."""
        return functional.embedding(positions.take(ids), self.shared.weight).to(self._compute_dtype())

    def _compute_dtype(self) -> torch.dtype:
        device = self.shared.weight.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.shared.weight.dtype
