"""Bytes that a training step holds on one GPU, by kind.

The moment counted is the start of the backward pass of a micro-batch that is not the first: all activations are kept,
gradients exist, and so do the loss's working tensors. Letters: d = d_model, i = heads * d_kv, f = d_ff, S inputs,
T targets.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from t0train.config.architecture import DropoutStyle, T5Config
from t0train.config.resolve import PRESETS, Backend, Strategy, factored_axes
from t0train.config.schema import OptimizerConfig
from t0train.estimate.flops import block_parameters, parameter_count, parameter_shapes

Checkpointing = Literal["none", "block", "selective"]

FP32 = 4
_ZERO_BUCKET, _ZERO_LIVE = 500_000_000, 1_000_000_000  # DeepSpeed's defaults, in numbers of elements


@dataclass(frozen=True)
class Workload:
    """What the bytes of a step depend on.

    Attributes:
        model: architecture.
        max_inputs: positions of a row's input side (S).
        max_targets: positions of a row's target side (T).
        micro_batch_rows: rows that go through the model at once on a GPU.
        chunk: target positions whose logits exist at once.
        precision: bf16 compute over fp32 parameters, or fp32.
        attention: backend.
        dropout: rate.
        dropout_style: see `t0train.model.dropout`.
        optimizer: section of the run.
        strategy: how GPUs share the model; see `t0train.distributed`.
        shards: pieces that fsdp, hsdp and deepspeed cut it in.
        zero_stage: of deepspeed.
        checkpointing: see `t0train.model.activation_checkpointing`.
        count: GPUs.
    """

    model: T5Config
    max_inputs: int
    max_targets: int
    micro_batch_rows: int
    chunk: int
    precision: Literal["bf16", "fp32"]
    attention: Backend
    dropout: float
    dropout_style: DropoutStyle
    optimizer: OptimizerConfig
    strategy: Strategy
    shards: int
    zero_stage: int
    checkpointing: Checkpointing
    count: int

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the compute precision."""
        return 2 if self.precision == "bf16" else FP32


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    Attributes:
        parameters: fp32, over which the compute precision's weights are made.
        gradients: fp32.
        optimizer: Adafactor's factors (counted whole on every GPU) or AdamW's two moments.
        working_weights: weights in the compute precision. single, ddp: all matrices, which autocast casts and keeps.
            fsdp, hsdp: two blocks (one computes, the next is being gathered), a block's gradient before and after it is
            cast to be summed, and embedding and head in fp32. deepspeed: all weights, or in ZeRO 3 those that it
            keeps gathered.
        activations: kept for the backward pass, with an attention that keeps no scores.
        attention: what the attention backend keeps beyond that.
        dropout_masks: nothing worth counting unless each element has its own (dropout_style: elementwise).
        head: the loss: logits of a chunk, and the head's gradient.
    """

    parameters: int
    gradients: int
    optimizer: int
    working_weights: int
    activations: int
    attention: int
    dropout_masks: int
    head: int

    @property
    def total(self) -> int:
        """All kinds."""
        return sum(asdict(self).values())


def step_memory(workload: Workload) -> Memory:
    """Bytes on each GPU during a step."""
    return Memory(
        parameters=math.ceil(FP32 * parameter_count(workload.model) / workload.shards),
        gradients=_gradient_bytes(workload),
        optimizer=optimizer_bytes(workload.model, workload.optimizer, workload.shards),
        working_weights=_working_weight_bytes(workload),
        activations=workload.micro_batch_rows * activation_bytes_per_row(workload),
        attention=workload.micro_batch_rows * attention_bytes_per_row(workload),
        dropout_masks=workload.micro_batch_rows * dropout_mask_bytes_per_row(workload),
        head=head_bytes(workload),
    )


def start_bytes(workload: Workload) -> int:
    """Bytes on each GPU when DeepSpeed has a whole model, in the precision that computes, and makes its fp32 partition.

    The other strategies begin with what each GPU keeps.
    """
    if workload.strategy != "deepspeed":
        return 0
    parameters = parameter_count(workload.model)
    return workload.compute_bytes * parameters + math.ceil(FP32 * parameters / workload.shards)


def peak_bytes(workload: Workload) -> int:
    """Bytes that each GPU needs at some time."""
    return max(step_memory(workload).total, start_bytes(workload))


def _gradient_bytes(workload: Workload) -> int:
    """fp32 sums over micro-batches, in as many pieces as the parameters; whole in ZeRO 1. ZeRO adds its bucket."""
    whole = FP32 * parameter_count(workload.model)
    if workload.strategy != "deepspeed":
        return math.ceil(whole / workload.shards)
    bucket = workload.compute_bytes * min(parameter_count(workload.model), _ZERO_BUCKET)
    return bucket + (whole if workload.zero_stage == 1 else math.ceil(whole / workload.shards))


def optimizer_bytes(model: T5Config, optimizer: OptimizerConfig, shards: int = 1) -> int:
    """fp32 second moments of Adafactor, one number for each row and column of a matrix; or both moments of AdamW."""
    if optimizer.name == "adamw":
        return math.ceil(2 * FP32 * parameter_count(model) / shards)
    preset = PRESETS[optimizer.preset]
    smallest = optimizer.min_dim_size_to_factor or preset.min_dim_size_to_factor
    numbers = 0
    for shape, count in parameter_shapes(model).items():
        factored = factored_axes(shape, smallest, preset.last_two)
        numbers += count * (sum(shape) if factored else math.prod(shape))
    return FP32 * numbers


def _working_weight_bytes(workload: Workload) -> int:
    model, parameters = workload.model, parameter_count(workload.model)
    encoder_block, decoder_block = block_parameters(model)
    if workload.strategy in ("fsdp", "hsdp"):
        blocks = 2 * workload.compute_bytes * decoder_block
        gradient = (workload.compute_bytes + FP32) * decoder_block
        embedding_and_head = FP32 * model.vocab_size * model.d_model * (1 if model.tie_word_embeddings else 2)
        return blocks + gradient + embedding_and_head
    if workload.strategy == "deepspeed":
        own_and_live = math.ceil(parameters / workload.shards) + min(parameters, _ZERO_LIVE)
        return workload.compute_bytes * (own_and_live if workload.zero_stage == 3 else parameters)
    if workload.precision == "fp32":
        return 0
    return workload.compute_bytes * model.num_layers * (encoder_block + decoder_block)


def activation_bytes_per_row(workload: Workload) -> int:
    """What the layers keep of one row for the backward pass, with an attention that keeps no scores.

    A block keeps the input and the output of each norm, queries, keys, values and attention output, and four tensors of
    the gated feed-forward (two projections, the gelu, their product). Of a checkpointed block its input is kept, and
    with `selective` the outputs of projections and of fused attention too.
    """
    model, inputs, targets = workload.model, workload.max_inputs, workload.max_targets
    d, inner, f = model.d_model, model.num_heads * model.d_kv, model.d_ff
    cross_keys_and_values = inputs * 2 * inner
    everything = (
        inputs * (4 * d + 4 * inner + (4 if model.is_gated else 2) * f),
        targets * (6 * d + 6 * inner + (4 if model.is_gated else 2) * f) + cross_keys_and_values,
    )
    if workload.checkpointing == "none":
        return workload.compute_bytes * _over_layers(workload, everything)
    kept = inputs * d, targets * d
    if workload.checkpointing == "selective":
        outputs = 0 if workload.attention == "eager" else inner  # eager attention is computed again
        kept = (
            inputs * (3 * d + 3 * inner + outputs + (2 if model.is_gated else 1) * f),
            targets * (4 * d + 4 * inner + 2 * outputs + (2 if model.is_gated else 1) * f) + cross_keys_and_values,
        )
    memory = inputs * d  # what cross attention reads
    return workload.compute_bytes * (_over_layers(workload, everything, kept) + memory)


def attention_bytes_per_row(workload: Workload) -> int:
    """What the attention backend keeps of one row beyond queries, keys, values and output.

    sdpa: the masks of the two self attentions, shared by the layers, and each output twice (before and after what reads
    nothing is set to zero). eager: fp32 weights, weights in the compute precision, and two boolean masks, in every
    layer.
    """
    model, inputs, targets = workload.model, workload.max_inputs, workload.max_targets
    heads, inner = model.num_heads, model.num_heads * model.d_kv
    if workload.attention == "flex":
        return 0
    if workload.attention == "sdpa":
        shared = workload.compute_bytes * heads * (inputs**2 + targets**2)
        return shared + workload.compute_bytes * _over_layers(workload, (inner * inputs, inner * 2 * targets))
    bytes_per_pair = heads * (FP32 + workload.compute_bytes) + 2
    return bytes_per_pair * _over_layers(workload, (inputs**2, targets**2 + inputs * targets))


def dropout_mask_bytes_per_row(workload: Workload) -> int:
    """Masks of every sub-layer's output, of the feed-forward's inside and of the attention weights (elementwise)."""
    if workload.dropout == 0 or workload.dropout_style == "mesh":
        return 0
    model, inputs, targets = workload.model, workload.max_inputs, workload.max_targets
    blocks = (
        inputs * (2 * model.d_model + model.d_ff) + model.num_heads * inputs**2,
        targets * (3 * model.d_model + model.d_ff) + model.num_heads * (targets**2 + inputs * targets),
    )
    return workload.compute_bytes * _over_layers(workload, blocks)


def _over_layers(workload: Workload, everything: tuple[int, int], kept: tuple[int, int] = (0, 0)) -> int:
    """What all blocks hold together.

    Args:
        workload: how many layers, and whether they are checkpointed.
        everything: of one encoder block and one decoder block, where they are not.
        kept: the part of it that checkpointed blocks keep; one at a time computes the rest again.
    """
    if workload.checkpointing == "none":
        return workload.model.num_layers * sum(everything)
    again = max(whole - part for whole, part in zip(everything, kept, strict=True))
    return workload.model.num_layers * sum(kept) + again


def head_bytes(workload: Workload) -> int:
    """Working tensors of the loss (`t0train.model.loss`), at most.

    Of a chunk's logits three fp32 copies: logits, gradient, and what is left of the chunk before. Of the head's weights
    the fp32 gradient, and the bf16 weights with a chunk's part of that gradient, or this part in fp32.
    """
    model = workload.model
    positions = min(workload.chunk, workload.micro_batch_rows * workload.max_targets)
    return 3 * FP32 * positions * model.vocab_size + 2 * FP32 * model.vocab_size * model.d_model
