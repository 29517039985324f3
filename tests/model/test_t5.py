"""Ours against Hugging Face's T5, unpacked and packed, for every attention backend."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import T5Config as HFConfig
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from t0train.core.errors import UserError
from t0train.data import RowBatch
from t0train.model import T5, Batch, T5Config, init_model, loss, token_scores
from t0train.model.attention import relative_buckets
from tests.model.oracle import (
    V10,
    V11,
    Example,
    as_rows,
    close,
    grad_of,
    hf_logits,
    hf_model,
    make_model,
    random_examples,
    summed_loss,
)

BACKENDS = ["eager", "segment", "sdpa"]
CONFIGS = {"v1.1": V11, "v1.0": V10}
Z_LOSS = 1e-2  # a hundred times T0's, so that it shows

# (input length, target lengths), row by row; the last row is full on both sides
TRAINING = [[(5, [4]), (37, [1]), (11, [7])], [(40, [12])], [(3, [2]), (3, [2]), (21, [9]), (4, [3])], [(64, [24])]]
RANKING = [[(5, [4, 2, 3]), (17, [5, 5])], [(40, [3, 1, 1, 6])], [(3, [2])]]


def packed(layout: list[list[tuple[int, list[int]]]]) -> tuple[list[Example], RowBatch]:
    examples = random_examples([lengths for row in layout for lengths in row])
    rest = iter(examples)
    return examples, as_rows([[next(rest) for _ in row] for row in layout], max_inputs=64, max_targets=24)


def targets_of(rows: RowBatch) -> list[tuple[int, np.ndarray]]:
    """(row, columns) of each target, in the order of the examples."""
    return [
        (row, np.flatnonzero(rows.target_segments[row] == segment))
        for row in range(len(rows))
        for segment in range(1, rows.target_segments[row].max() + 1)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", CONFIGS)
@pytest.mark.parametrize("layout", [[[(23, [7])]], TRAINING, RANKING], ids=["unpacked", "packed", "choices"])
def test_logits_and_gradients_equal_hugging_face(
    layout: list[list[tuple[int, list[int]]]], version: str, backend: str
) -> None:
    ours = make_model(CONFIGS[version], attention=backend)
    theirs = hf_model(ours)
    examples, rows = packed(layout)
    batch = Batch.from_rows(rows)

    logits = ours(batch)
    output = loss(ours, batch, denominator=1.0, z_loss=Z_LOSS, chunk=5)
    output.total.backward()

    alone = [(hf_logits(theirs, e.inputs, target), target) for e in examples for target in e.targets]
    torch.stack([summed_loss(of_target, target, Z_LOSS) for of_target, target in alone]).sum().backward()
    for (row, columns), (expected, _) in zip(targets_of(rows), alone, strict=True):
        assert close(logits[row, columns], expected)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert close(grad_of(parameter), grad_of(gradients[name])), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_changing_one_segment_leaves_the_others_bit_equal(backend: str, precision: str) -> None:
    model = make_model(V11, attention=backend)
    _, rows = packed(TRAINING)
    batch = Batch.from_rows(rows)
    changed_inputs = (batch.input_segments == 2) & (torch.arange(len(rows)) == 2)[:, None]
    changed_targets = (batch.target_segments == 2) & (torch.arange(len(rows)) == 2)[:, None]
    other = replace(
        batch,
        input_ids=torch.where(changed_inputs, 96 - batch.input_ids, batch.input_ids),
        decoder_input_ids=torch.where(changed_targets, 96 - batch.decoder_input_ids, batch.decoder_input_ids),
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        before, after = model(batch), model(other)
    kept = (batch.target_segments > 0) & ~changed_targets
    assert torch.equal(before[kept], after[kept])
    assert not torch.isclose(before[changed_targets], after[changed_targets]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_orders_and_more_padding_change_nothing(backend: str) -> None:
    model = make_model(V11, attention=backend)
    examples = random_examples([(5, [4, 2]), (17, [5]), (9, [3])])
    scores = []
    for order, width in (((0, 1, 2), 31), ((2, 0, 1), 50)):
        rows = as_rows([[examples[index] for index in order]], width, 20)
        of_rows = token_scores(model, Batch.from_rows(rows))[0].double()
        sums = [float(of_rows[columns].sum()) for _, columns in targets_of(rows)]
        counts = np.cumsum([0, *(len(examples[index].targets) for index in order)])
        scores.append({index: sums[counts[place] : counts[place + 1]] for place, index in enumerate(order)})
    for index in range(3):
        assert scores[0][index] == pytest.approx(scores[1][index], rel=1e-5)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_fully_padded_rows_stay_finite(backend: str) -> None:
    model = make_model(V11, attention=backend)
    _, rows = packed(TRAINING[:2])
    batch = Batch.from_rows(rows)
    for name in ("input_ids", "input_segments", "decoder_input_ids", "labels", "target_segments", "target_sources"):
        getattr(batch, name)[1] = 0
    output = loss(model, batch, denominator=1.0)
    output.total.backward()
    assert model(batch).isfinite().all()
    assert all(grad_of(parameter).isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_autocast_is_near_float32(backend: str) -> None:
    model = make_model(V11, attention=backend)
    _, rows = packed(TRAINING)
    batch = Batch.from_rows(rows)
    exact = loss(model, batch, denominator=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.decode_states(batch).dtype == torch.bfloat16
        rough = loss(model, batch, denominator=1.0)
    rough.total.backward()
    assert float(rough.total) == pytest.approx(float(exact.total), rel=2e-2)
    assert rough.cross_entropy.dtype == torch.float32
    for parameter in model.parameters():
        assert grad_of(parameter).dtype == torch.float32
        assert grad_of(parameter).isfinite().all()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "most", "length"), [(32, 128, 300), (16, 20, 7), (32, 128, 1)])
def test_relative_buckets_equal_hugging_face(bidirectional: bool, buckets: int, most: int, length: int) -> None:
    offsets = torch.arange(-(length - 1), length)
    expected = T5Attention._relative_position_bucket(offsets, bidirectional, buckets, most)
    assert torch.equal(relative_buckets(length, buckets, most, bidirectional, torch.device("cpu")), expected)


def test_random_weights_have_an_untied_head_and_a_first_loss_near_log_vocabulary() -> None:
    model = init_model("tiny", seed=3, vocab_size=2000)
    assert not model.config.tie_word_embeddings
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    examples = random_examples([(20, [10])] * 20)
    output = loss(model.eval(), Batch.from_rows(as_rows([examples], 400, 200)), denominator=1.0)
    assert float(output.cross_entropy / output.tokens) == pytest.approx(math.log(2000) + 0.5, abs=0.5)


def test_random_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (init_model("tiny", seed=seed, vocab_size=50).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["shared.weight"], other["shared.weight"])


@pytest.mark.parametrize("version", CONFIGS)
def test_standard_deviations_of_random_weights_equal_hugging_face(version: str) -> None:
    config: T5Config = replace(CONFIGS[version], d_model=128, d_kv=32, num_heads=6, d_ff=200)
    ours = init_model("tiny", **vars(config))
    torch.manual_seed(0)
    theirs = dict(T5ForConditionalGeneration(HFConfig(**config.to_hf())).named_parameters())

    def spread(tensor: Tensor) -> float:
        return float(tensor.std())

    for name, parameter in ours.named_parameters():
        if name != "lm_head.weight" and "norm" not in name:
            five_sigma = 5 * parameter.numel() ** -0.5  # of the ratio of two estimates of one standard deviation
            assert spread(parameter) == pytest.approx(spread(theirs[name]), rel=five_sigma), name
    if not config.tie_word_embeddings:
        assert spread(ours.lm_head.weight) == pytest.approx(128**-0.5, rel=0.05)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'tiny'"):
        init_model("tinny")
    with pytest.raises(UserError, match="'dropout'"):
        init_model("tiny", dropuot=0.1)
    with pytest.raises(UserError, match="'segment'"):
        T5(V11, attention="segments")


def test_segments_that_are_torn_apart_are_refused() -> None:
    model = make_model(V11, attention="segment")
    _, rows = packed([[(5, [4]), (7, [3])]])
    rows.input_segments[0, :3] = 2
    with pytest.raises(ValueError, match="contiguous"):
        model(Batch.from_rows(rows))


@pytest.mark.parametrize("layout", [TRAINING, RANKING], ids=["packed", "choices"])
def test_flex_reads_the_bias_table_as_eager_does(layout: list[list[tuple[int, list[int]]]]) -> None:
    """Uncompiled and forward alone: FlexAttention has no gradient on a CPU. `scripts/gpu_check.py` checks the rest."""
    _, rows = packed(layout)
    batch = Batch.from_rows(rows)
    batch.target_segments[0, -3:] = 9  # targets without inputs, which read nothing
    batch.target_sources[0, -3:] = 9
    with torch.no_grad():
        expected, found = (make_model(V11, attention=name)(batch) for name in ("eager", "flex"))
    assert close(found[batch.target_segments > 0], expected[batch.target_segments > 0])
    with pytest.raises(UserError, match="no gradient on a CPU"):
        make_model(V11, attention="flex")(batch)
