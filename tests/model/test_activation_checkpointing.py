"""Activation checkpointing changes what is kept, never what is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from t0train.core.errors import UserError
from t0train.model import Batch, T5Config, loss
from t0train.model.activation_checkpointing import Recompute
from tests.model.oracle import V11, as_rows, grad_of, make_model, random_examples

KINDS: tuple[Recompute, ...] = ("none", "block", "selective")
DROPPING = replace(V11, dropout=0.2)
ELEMENTWISE = replace(DROPPING, dropout_style="elementwise")
ARMS = [("eager", DROPPING), ("segment", DROPPING), ("sdpa", DROPPING), ("eager", ELEMENTWISE)]


def rows_of_three() -> Batch:
    examples = random_examples([(5, [4]), (37, [1]), (11, [7])])
    return Batch.from_rows(as_rows([examples[:2], examples[2:]], 64, 24), seed=3)


def gradients(config: T5Config, attention: str, kind: Recompute, bf16: bool = False) -> tuple[dict[str, Tensor], int]:
    """Gradients of a batch, and the FLOP of matrix products and attention that they took."""
    model = make_model(config, attention=attention)
    model.checkpoint_activations(kind)
    with FlopCounterMode(display=False) as counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = loss(model, rows_of_three(), denominator=1.0)
        output.total.backward()
    return {name: grad_of(parameter) for name, parameter in model.named_parameters()}, counter.get_total_flops()


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("attention", "config"), ARMS, ids=["eager", "segment", "sdpa", "elementwise"])
def test_gradients_are_bit_equal(attention: str, config: T5Config, bf16: bool) -> None:
    expected, flop = gradients(config, attention, "none", bf16)
    of_block, flop_of_block = gradients(config, attention, "block", bf16)
    of_selective, flop_of_selective = gradients(config, attention, "selective", bf16)
    for name, gradient in expected.items():
        assert torch.equal(of_block[name], gradient), name
        assert torch.equal(of_selective[name], gradient), name
    # a block's forward pass is about a third of its step; `selective` repeats scores at most, which are few here
    assert flop < flop_of_selective < 1.15 * flop
    assert 1.25 * flop < flop_of_block < 4 / 3 * flop


def test_blocks_keep_their_inputs_alone() -> None:
    batch = rows_of_three()
    kept = {}
    for kind in ("none", "block"):
        model = make_model(V11, attention="sdpa")
        model.checkpoint_activations(kind)
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss(model, batch, denominator=1.0)
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept[kind] = sum(size for storage, size in sizes.items() if storage not in parameters)
    assert kept["block"] < kept["none"] / 3


def test_nothing_is_recomputed_in_evaluation() -> None:
    model = make_model(V11, attention="sdpa")
    model.checkpoint_activations("selective")
    with torch.no_grad():
        assert torch.equal(model(rows_of_three()), make_model(V11, attention="sdpa")(rows_of_three()))


def test_selective_refuses_one_opaque_kernel() -> None:
    with pytest.raises(UserError, match=r"selective.*flex.*use block"):
        make_model(V11, attention="flex").checkpoint_activations("selective")
