"""Masks: their law, their shape, and that nothing but (seed, row, site, position, channel) decides them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from t0train.config.architecture import DropoutStyle
from t0train.core import hashing
from t0train.core.errors import UserError
from t0train.model import T5, Batch, loss
from t0train.model.attention.dense import eager
from t0train.model.dropout import Dropout, Positions, mix64
from tests.model.oracle import V11, as_rows, close, grad_of, make_model, random_examples

RATE = 0.3
MESH = replace(V11, dropout=RATE)
ELEMENTWISE = replace(MESH, dropout_style="elementwise")
ROWS, LENGTH, CHANNELS = 6, 50, 64


def batch_of(row_ids: list[int], seed: int = 0, length: int = LENGTH) -> Batch:
    ones = torch.ones(len(row_ids), length, dtype=torch.long)
    return Batch(ones, ones, ones, ones, ones, ones, torch.tensor(row_ids), seed)


def masks(style: Any, row_ids: list[int], seed: int = 0, site: int = 0, length: int = LENGTH) -> Tensor:
    """[rows, length, channels] mask of hidden states."""
    batch = batch_of(row_ids, seed, length)
    drop = Dropout(style, batch, training=True)
    return drop.hidden(torch.ones(len(row_ids), length, CHANNELS), site, Positions.every(batch.input_segments))


def test_hashes_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).integers(-(2**63), 2**63, 1000, dtype=np.int64, endpoint=False)
    values[:3] = 0, -1, 2**63 - 1
    found = mix64(torch.from_numpy(values)).numpy()
    assert np.array_equal(found.view(np.uint64), hashing.mix64(values.view(np.uint64)))


def test_mesh_masks_are_constant_along_the_length_and_elementwise_ones_are_not() -> None:
    mesh, elementwise = (masks(style, list(range(ROWS))) for style in (MESH, ELEMENTWISE))
    assert torch.equal(mesh, mesh[:, :1].expand_as(mesh))
    assert not torch.equal(elementwise[:, 0], elementwise[:, 1])


@pytest.mark.parametrize("style", [MESH, ELEMENTWISE])
def test_rate_and_expectation(style: object) -> None:
    drawn = masks(style, list(range(2000)), length=2)[:, 0]
    values = drawn.unique()
    assert values.tolist() == pytest.approx([0, 1 / (1 - RATE)])
    # 128,000 draws: the standard error of the share is 0.0013
    assert float((drawn == 0).float().mean()) == pytest.approx(RATE, abs=0.006)
    assert float(drawn.mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("style", [MESH, ELEMENTWISE])
def test_masks_of_other_rows_sites_and_seeds_are_independent(style: object) -> None:
    rows = list(range(500))
    first = masks(style, rows, length=1).flatten() > 0
    others = {
        "row": masks(style, [row + 1 for row in rows], length=1),
        "site": masks(style, rows, site=1, length=1),
        "seed": masks(style, rows, seed=1, length=1),
        "large seed": masks(style, rows, seed=2**64 - 1, length=1),
        "channel": masks(style, rows, length=1).roll(1, -1),
    }
    for name, other in others.items():
        both_kept = float((first & (other.flatten() > 0)).float().mean())
        assert both_kept == pytest.approx((1 - RATE) ** 2, abs=0.01), name  # 32,000 draws: standard error 0.003


def test_attention_masks_are_shared_by_queries_and_equal_to_masking_weights() -> None:
    heads, keys = 3, 11
    batch = batch_of(list(range(2)), length=keys)
    positions = Positions.every(batch.input_segments)
    mask = Dropout(MESH, batch, training=True).value_mask(heads, 4, positions, torch.float32)
    assert mask is not None
    assert mask.shape == (2, keys, heads)
    assert 0 < int((mask == 0).sum()) < mask.numel()

    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, keys, heads, 8, generator=generator) for _ in range(3))
    attend = eager(torch.ones(2, 1, keys, keys, dtype=torch.bool), None)
    on_values = attend(query, key, value * mask[..., None], None)
    # the original's form: a mask over (row, head, key) on the weights, the same for every query
    weights = torch.einsum("rqhd,rkhd->rhqk", query, key).softmax(-1) * mask.transpose(1, 2)[:, :, None, :]
    torch.testing.assert_close(on_values, torch.einsum("rhqk,rkhd->rqhd", weights, value))


def rows_of_three() -> Batch:
    examples = random_examples([(9, [4]), (20, [7]), (5, [2]), (14, [6]), (30, [12])])
    return Batch.from_rows(as_rows([examples[:2], examples[2:4], examples[4:]], 32, 12), seed=9)


def gradients(model: T5, batches: list[Batch]) -> list[Tensor]:
    model.zero_grad()
    for batch in batches:
        loss(model, batch, denominator=1.0).total.backward()
    return [grad_of(parameter).clone() for parameter in model.parameters()]


def cut(batch: Batch, start: int, stop: int) -> Batch:
    names = [field.name for field in fields(batch) if field.init and field.name != "seed"]
    return replace(batch, **{name: getattr(batch, name)[start:stop] for name in names})


@pytest.mark.parametrize("style", ["mesh", "elementwise"])
def test_micro_batches_get_the_same_masks(style: DropoutStyle) -> None:
    model = make_model(replace(V11, dropout=RATE, dropout_style=style))
    batch = rows_of_three()
    whole = gradients(model, [batch])
    for parts in ([cut(batch, 0, 1), cut(batch, 1, 3)], [cut(batch, 2, 3), cut(batch, 0, 2)]):
        assert all(close(a, b) for a, b in zip(gradients(model, parts), whole, strict=True))
    assert not close(gradients(model, [replace(batch, seed=10)])[0], whole[0], 0.01)


@pytest.mark.parametrize("backend", ["segment", "sdpa"])
def test_every_backend_drops_the_same(backend: str) -> None:
    model = make_model(MESH)
    expected = gradients(model, [rows_of_three()])
    model.attention = backend
    assert all(close(a, b) for a, b in zip(gradients(model, [rows_of_three()]), expected, strict=True))


@pytest.mark.parametrize("style", ["mesh", "elementwise"])
def test_a_changed_segment_leaves_the_others_bit_equal_under_dropout(style: DropoutStyle) -> None:
    model = make_model(replace(V11, dropout=RATE, dropout_style=style), attention="auto").train()
    batch = rows_of_three()
    first = batch.input_segments == 1
    other = replace(batch, input_ids=torch.where(first, 96 - batch.input_ids, batch.input_ids))
    before, after = model(batch), model(other)
    assert torch.equal(before[batch.target_segments == 2], after[batch.target_segments == 2])
    assert not torch.equal(before[batch.target_segments == 1], after[batch.target_segments == 1])


def test_the_five_places_of_the_original() -> None:
    """Embedding, feed-forward, attention weights, sub-layer outputs, final norm: each has sites of its own."""
    model = make_model(MESH)
    blocks = [(block.site, dict(block.named_modules())) for block in model.blocks]
    inside = [
        (name, (site, part.site))
        for site, parts in blocks
        for name, part in parts.items()
        if name and hasattr(part, "site")
    ]
    names = [name for name, _ in inside]
    sites: list[tuple[Any, ...]] = [site for _, site in inside]
    sites += [(site,) for site in (*model.encoder.sites, *model.decoder.sites)]
    assert len({site for site, _ in blocks}) == 2 * MESH.num_layers
    assert not {site for site, _ in blocks} & {*model.encoder.sites, *model.decoder.sites}
    layers = MESH.num_layers
    attentions, feed_forwards, sub_layers, ends = 3 * layers, 2 * layers, 5 * layers, 4
    assert len(sites) == len(set(sites)) == attentions + feed_forwards + sub_layers + ends
    assert sum(name.endswith("DenseReluDense") for name in names) == feed_forwards
    assert sum(name.endswith("Attention") for name in names) == attentions


def test_evaluation_drops_nothing() -> None:
    model = make_model(MESH).eval()
    without = make_model(V11)
    torch.testing.assert_close(model(rows_of_three()), without(rows_of_three()), rtol=0, atol=0)


def test_single_weights_cannot_be_dropped_by_fused_attention() -> None:
    for backend in ("segment", "sdpa"):
        with pytest.raises(UserError, match="elementwise"):
            T5(ELEMENTWISE, attention=backend)
        T5(replace(ELEMENTWISE, dropout=0.0), attention=backend)
