"""Bytes, against what the module keeps for its backward pass, against real optimizers, and against known figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from t0train.config.architecture import SIZES, T5Config
from t0train.config.schema import OptimizerConfig
from t0train.estimate.flops import parameter_count
from t0train.estimate.memory import (
    Workload,
    activation_bytes_per_row,
    attention_bytes_per_row,
    dropout_mask_bytes_per_row,
    head_bytes,
    optimizer_bytes,
    peak_bytes,
    start_bytes,
    step_memory,
)
from t0train.model import T5, loss
from t0train.model.activation_checkpointing import Recompute
from t0train.model.loss import _HeadLoss
from t0train.optim import build_optimizer
from tests.estimate.helpers import GATED, RELU, allocated, batch, fused_attention, workload

GIB, MIB = 2**30, 2**20


def build(config: T5Config, attention: str, checkpointing: Recompute) -> T5:
    """A model in training, with a bias that has no gradient, or torch would not use its fused kernel on a CPU."""
    torch.set_num_threads(1)
    model = T5(config, attention).train()
    model.checkpoint_activations(checkpointing)
    for stack in (model.encoder, model.decoder):
        stack.bias_embedding.weight.requires_grad_(False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    ("config", "attention", "checkpointing"),
    [
        (GATED, "sdpa", "none"),
        (GATED, "sdpa", "block"),
        (GATED, "sdpa", "selective"),
        (GATED, "eager", "none"),
        (GATED, "eager", "selective"),
        (RELU, "sdpa", "selective"),
        (replace(GATED, dropout_style="elementwise"), "eager", "none"),
    ],
)
def test_what_is_kept_is_what_a_forward_pass_leaves_behind(
    monkeypatch: pytest.MonkeyPatch, config: T5Config, attention: str, checkpointing: Recompute, precision: str
) -> None:
    monkeypatch.setattr(functional, "scaled_dot_product_attention", fused_attention)
    rows = batch()
    kept, expected = [], []
    for layers in (1, 2):
        model = build(replace(config, num_layers=layers), attention, checkpointing)

        def compute(model: T5 = model) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return model.decode_states(rows)

        kept.append(allocated(compute)[0])
        estimated = workload(model.config, attention=attention, precision=precision, checkpointing=checkpointing)
        memory = step_memory(estimated)
        expected.append(memory.activations + memory.attention + memory.dropout_masks)
        if checkpointing == "none":  # or else they are cast again
            expected[-1] += memory.working_weights
    assert kept[1] - kept[0] == pytest.approx(expected[1] - expected[0], rel=0.02)


@pytest.mark.parametrize(
    ("attention", "checkpointing", "precision"),
    [
        ("sdpa", "none", "bf16"),
        ("sdpa", "block", "bf16"),
        ("eager", "selective", "fp32"),
    ],
)
def test_total_is_the_peak_of_a_micro_batch(
    monkeypatch: pytest.MonkeyPatch, attention: str, checkpointing: Recompute, precision: str
) -> None:
    """Forward and backward, with the gradients of another micro-batch in place."""
    monkeypatch.setattr(functional, "scaled_dot_product_attention", fused_attention)
    config = replace(GATED, vocab_size=1024, num_layers=3)
    model, rows = build(config, attention, checkpointing), batch()

    def compute() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = loss(model, rows, denominator=100.0, chunk=64)
        output.total.backward()

    compute()
    _, peak = allocated(compute)
    estimated = workload(config, attention=attention, precision=precision, checkpointing=checkpointing, chunk=64)
    memory = step_memory(estimated)
    assert (
        0.95 * peak < memory.total - memory.parameters - memory.gradients - memory.optimizer < 1.25 * peak
    )  # never all at once


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_loss_works_in_what_the_head_is_given(precision: str, dtype: torch.dtype) -> None:
    config, positions, chunk = replace(GATED, vocab_size=2048), 768, 256
    head = torch.randn(config.vocab_size, config.d_model, requires_grad=True)
    states = torch.randn(positions, config.d_model, dtype=dtype, requires_grad=True)
    labels = torch.randint(1, config.vocab_size, (positions,))
    _, peak = allocated(lambda: _HeadLoss.apply(states, head, labels, 1e-4, 1.0, chunk, True))  # type: ignore[no-untyped-call]
    given = head_bytes(workload(config, precision=precision, chunk=chunk, micro_batch_rows=50))
    assert 0.95 * peak < given < 1.2 * peak


@pytest.mark.parametrize("preset", ["t5", "hf"])
@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_optimizer_state_is_what_the_optimizer_holds(name: str, preset: str) -> None:
    settings = OptimizerConfig.model_validate({"name": name, "preset": preset})
    model = T5(GATED)
    optimizer = build_optimizer(model.named_parameters(), settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(
        tensor.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for key, tensor in state.items()
        if key != "step"
    )
    assert optimizer_bytes(GATED, settings) == held


def xl_workload(size: str, **changes: object) -> Workload:
    """One row of 1,024 + 256 positions on 8 GPUs."""
    count = changes.get("count", 8)
    sizes = {
        "max_inputs": 1024,
        "max_targets": 256,
        "micro_batch_rows": 1,
        "strategy": "fsdp",
        "count": 8,
        "shards": count,
    }
    return workload(SIZES[size], **{**sizes, **changes})


@pytest.mark.parametrize(
    ("size", "state", "state_of_8", "state_of_64", "activations", "checkpointed", "adamw_more"),
    [
        # GiB, computed by others from the same architecture: parameters and gradients in fp32; bf16 activations
        ("large", 5.8, 0.73, 0.09, 1.25, 0.10, 5.8),
        ("xl", 21.2, 2.65, 0.33, 2.39, 0.19, 21.2),
        ("xxl", 83.0, 10.4, 1.30, 4.78, 0.38, 83.0),
    ],
)
def test_published_sizes(
    size: str,
    state: float,
    state_of_8: float,
    state_of_64: float,
    activations: float,
    checkpointed: float,
    adamw_more: float,
) -> None:
    for count, expected in ((1, state), (8, state_of_8), (64, state_of_64)):
        memory = step_memory(xl_workload(size, count=count))
        assert (memory.parameters + memory.gradients) / GIB == pytest.approx(expected, rel=0.05)
    assert activation_bytes_per_row(xl_workload(size)) / GIB == pytest.approx(activations, rel=0.05)
    assert activation_bytes_per_row(xl_workload(size, checkpointing="block")) / GIB == pytest.approx(
        checkpointed, rel=0.05
    )
    adamw = OptimizerConfig(name="adamw")
    assert optimizer_bytes(SIZES[size], adamw) / GIB == pytest.approx(adamw_more, rel=0.05)


@pytest.mark.parametrize(
    ("size", "factors_mib", "block_mib", "embedding_mib"), [("xl", 8.7, 124, 126), ("xxl", 17.2, 496, 251)]
)
def test_adafactor_and_fsdp_at_size(size: str, factors_mib: float, block_mib: float, embedding_mib: float) -> None:
    config = SIZES[size]
    vectors = (5 * config.num_layers + 2) * config.d_model + 2 * config.relative_buckets * config.num_heads
    factors = optimizer_bytes(config, OptimizerConfig()) - 4 * vectors  # norms and bias tables have whole moments
    assert factors / MIB == pytest.approx(factors_mib, rel=0.05)
    # two blocks in bf16; a block's gradient in bf16 and in fp32; embedding and head in fp32, twice as wide
    gathered = step_memory(xl_workload(size)).working_weights
    assert gathered / MIB == pytest.approx((2 + 1 + 2) * block_mib + 2 * 2 * embedding_mib, rel=0.05)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_checkpointing_keeps_the_scores_of_one_layer(attention: str) -> None:
    one, all_layers = (
        attention_bytes_per_row(xl_workload("xl", attention=attention, checkpointing=kind))
        for kind in ("block", "none")
    )
    shared = 2 * 32 * (1024**2 + 256**2) if attention == "sdpa" else 0
    encoder_part = {"eager": (6 * 32 + 2) * 1024**2, "sdpa": 2 * 2048 * 1024}[attention]
    assert one - shared == encoder_part
    assert 24 * (one - shared) < all_layers - shared < 48 * (one - shared)


def test_masks_of_single_elements() -> None:
    assert dropout_mask_bytes_per_row(xl_workload("xl", dropout_style="mesh")) == 0
    assert dropout_mask_bytes_per_row(xl_workload("xl", dropout_style="elementwise", dropout=0.0)) == 0


def test_deepspeed_begins_with_the_whole_model() -> None:
    """xxl has 11,135,332,352 parameters: 2 bytes of each for bf16, and an eighth of 4 bytes of each."""
    step = xl_workload("xxl", strategy="deepspeed", shards=8, zero_stage=3, micro_batch_rows=1)
    assert start_bytes(step) == 11_135_332_352 * 2 + 11_135_332_352 // 2
    assert peak_bytes(step) == max(start_bytes(step), step_memory(step).total)
    tight = xl_workload(
        "xxl", strategy="deepspeed", shards=512, zero_stage=3, micro_batch_rows=1, checkpointing="block"
    )
    assert peak_bytes(tight) == start_bytes(tight) > step_memory(tight).total
    assert start_bytes(xl_workload("xxl", strategy="fsdp", shards=8)) == 0


def test_what_each_strategy_holds_of_parameters_and_gradients() -> None:
    """In fp32 copies of the parameters, on 8 GPUs; ZeRO as in its paper (Rajbhandari et al. 2020, figure 1)."""
    copy = 4 * parameter_count(SIZES["xxl"])
    bucket = 2 * 500_000_000 / copy  # DeepSpeed's default, in bf16
    expected = {
        ("single", 1, 3): (1, 1),
        ("ddp", 1, 3): (1, 1),
        ("fsdp", 8, 3): (1 / 8, 1 / 8),
        ("hsdp", 4, 3): (1 / 4, 1 / 4),
        ("deepspeed", 8, 1): (1 / 8, 1 + bucket),
        ("deepspeed", 8, 2): (1 / 8, 1 / 8 + bucket),
        ("deepspeed", 8, 3): (1 / 8, 1 / 8 + bucket),
    }
    for (strategy, shards, stage), parts in expected.items():
        memory = step_memory(xl_workload("xxl", strategy=strategy, shards=shards, zero_stage=stage))
        assert (memory.parameters / copy, memory.gradients / copy) == pytest.approx(parts)


def test_weights_in_bf16() -> None:
    """Half a copy of the matrices or of all weights; under ZeRO 3 its share and what it keeps gathered."""
    parameters = parameter_count(SIZES["xxl"])
    embeddings = 2 * 32_128 * 4096
    single, zero_2, zero_3 = (
        step_memory(xl_workload("xxl", strategy=strategy, zero_stage=stage)).working_weights
        for strategy, stage in (("single", 3), ("deepspeed", 2), ("deepspeed", 3))
    )
    assert single == pytest.approx(2 * (parameters - embeddings), rel=1e-3)
    assert zero_2 == 2 * parameters
    assert zero_3 == pytest.approx(2 * parameters / 8 + 2e9)
    assert step_memory(xl_workload("xxl", strategy="single", precision="fp32")).working_weights == 0
