"""That compiling is wired up: one graph for each stack, compiled once. Backend `eager` traces without compiling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from t0train.core.errors import UserError
from t0train.model import Batch, compile_blocks, graph_count, loss
from t0train.model.activation_checkpointing import Recompute
from tests.model.oracle import V11, as_rows, make_model, random_examples

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_all_blocks_of_a_stack_are_one_graph_and_nothing_is_compiled_again(recompute: Recompute) -> None:
    config = replace(V11, dropout=0.2, num_layers=4)
    examples = random_examples([(5, [4]), (37, [1]), (11, [7])])
    compiled, plain = (make_model(config, attention="sdpa") for _ in range(2))
    compiled.checkpoint_activations(recompute)
    names = list(compiled.state_dict())
    compile_blocks(compiled, CPU, backend="eager")
    assert list(compiled.state_dict()) == names
    before, counts = graph_count(), []
    for seed, order in enumerate(([0, 1, 2], [2, 1, 0], [1, 0, 2])):  # other segments, masks and dropout each time
        batch = Batch.from_rows(as_rows([[examples[index] for index in order]], 64, 24), seed=seed)
        for model in (compiled, plain):
            model.zero_grad()
            loss(model, batch, denominator=1.0).total.backward()
        counts.append(graph_count() - before)
        for ours, expected in zip(compiled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-5, atol=1e-6)
    assert counts == [2, 2, 2]  # encoder block, decoder block


def test_shapes_that_follow_the_data_are_refused() -> None:
    for attention in ("auto", "segment"):
        with pytest.raises(UserError, match=r"train\.compile.*sdpa or eager"):
            compile_blocks(make_model(V11, attention=attention), CPU)
