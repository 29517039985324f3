"""Gradients do not depend on micro-batches; the loss is what the denominators say; bad numbers stop the run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from t0train.config import RunConfig
from t0train.data import RowBatch, build_rows
from t0train.distributed import World, build_engine
from t0train.distributed.engine import Engine
from t0train.model import T5, Batch, init_model
from t0train.training import NonFiniteError
from t0train.training.step import Gradients, clip_factor, compute_gradients, micro_batches, refuse_non_finite
from tests.model.oracle import grad_of

DENOMINATORS = ("padded", "tokens", "examples")


@pytest.fixture(scope="module")
def rows() -> RowBatch:
    """Eight rows with one to three examples, of very different target lengths."""
    generator = np.random.default_rng(0)
    layout = [
        [
            (generator.integers(3, 60, size=length).tolist(), [[*generator.integers(3, 60, size=2 * length), 1]])
            for length in generator.integers(1, 5, size=1 + row % 3)
        ]
        for row in range(8)
    ]
    return build_rows(layout, 16, 32)


def small_model(dropout: float) -> T5:
    return init_model("tiny", seed=1, vocab_size=64, dropout=dropout, d_model=32, d_ff=48, d_kv=8)


def gradients_of(
    rows: RowBatch, configure: Callable[..., RunConfig], denominator: str, micro_batch_rows: int, dropout: float = 0.1
) -> tuple[Gradients, dict[str, torch.Tensor]]:
    model = small_model(dropout).train()
    config = configure(f"train.loss.denominator={denominator}", f"train.batch.micro_batch_rows={micro_batch_rows}")
    found = compute_gradients(build_engine(model, config, World()), rows, rows, config.train, dropout_seed=5)
    return found, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("micro_batch_rows", [1, 2, 3])
def test_micro_batches_change_nothing(
    rows: RowBatch, configure: Callable[..., RunConfig], denominator: str, micro_batch_rows: int
) -> None:
    whole, expected = gradients_of(rows, configure, denominator, 8)
    parts, found = gradients_of(rows, configure, denominator, micro_batch_rows)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.norm == pytest.approx(whole.norm, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_loss_by_hand(rows: RowBatch, configure: Callable[..., RunConfig], denominator: str) -> None:
    found, _ = gradients_of(rows, configure, denominator, 4, dropout=0.0)
    model = small_model(0.0).train()
    logits = model(Batch.from_rows(rows)).double().flatten(0, 1)
    labels = torch.as_tensor(rows.labels).long().flatten()
    cross_entropy = functional.cross_entropy(logits, labels, ignore_index=0, reduction="sum")
    z_loss = 1e-4 * (logits.logsumexp(-1)[labels > 0] ** 2).sum()
    divisor = {"padded": 8 * 32, "tokens": int((labels > 0).sum()), "examples": 1 + 2 + 3 + 1 + 2 + 3 + 1 + 2}
    expected = (cross_entropy + z_loss) / divisor[denominator]
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert found.cross_entropy == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert found.z_loss == pytest.approx(z_loss.item(), rel=1e-5)
    expected.backward()
    squares = sum(float(grad_of(parameter).double().square().sum()) for parameter in model.parameters())
    assert found.norm == pytest.approx(squares**0.5, rel=1e-4)


def test_bf16_computes_in_bf16_and_keeps_fp32_gradients(rows: RowBatch, configure: Callable[..., RunConfig]) -> None:
    exact, _ = gradients_of(rows, configure, "tokens", 4)
    model = small_model(0.1).train()
    seen = []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    config = configure("train.precision=bf16", "train.loss.denominator=tokens")
    found = compute_gradients(build_engine(model, config, World()), rows, rows, config.train, 5)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}  # type: ignore[union-attr]
    assert found.loss == pytest.approx(exact.loss, rel=0.02)
    assert found.loss != exact.loss


def test_clipping_is_that_of_torch(configure: Callable[..., RunConfig]) -> None:
    class Spy(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            self.seen = [parameter.grad.clone() for parameter in self.param_groups[0]["params"]]

    generator = torch.Generator().manual_seed(0)
    for max_norm in (0.5, 1e6):
        engine: Engine = build_engine(small_model(0.0), configure(), World())
        engine.optimizer = spy = Spy(engine.model.parameters())
        for parameter in engine.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        twin = [grad_of(parameter).clone().requires_grad_() for parameter in engine.model.parameters()]
        for copy in twin:
            copy.grad = copy.detach().clone()
        norm = torch.nn.utils.clip_grad_norm_(twin, max_norm)
        assert float(engine.squared_norm().sqrt()) == pytest.approx(float(norm), rel=1e-6)
        engine.step(0.1, clip_factor(float(norm), max_norm))
        for found, expected in zip(spy.seen, twin, strict=True):
            torch.testing.assert_close(found, expected.grad, rtol=1e-5, atol=0)
        assert engine.optimizer.param_groups[0]["lr"] == 0.1
        assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_micro_batches_that_only_keep_step_with_the_others(rows: RowBatch, configure: Callable[..., RunConfig]) -> None:
    parts = micro_batches(rows.slice(0, 3), 2, 4)
    assert [len(part) for part in parts] == [2, 1, 1, 1]
    assert [int((part.labels > 0).sum()) for part in parts[2:]] == [0, 0]
    config, engine = configure(), build_engine(small_model(0.1).train(), configure(), World())
    compute_gradients(engine, rows.slice(0, 3), rows, config.train, 5)
    expected = [parameter.grad.clone() for parameter in engine.model.parameters()]  # type: ignore[union-attr]
    for part in parts[2:]:
        sums = engine.backward(Batch.from_rows(part, seed=5), 10.0, is_last=True)
        assert sums.tolist() == [0, 0, 0]
    for parameter, before in zip(engine.model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, before)


def test_non_finite_names_the_tasks() -> None:
    layout = [[([5], [[6, 1]]), ([5], [[6, 1]])], [([5], [[6, 1]])], [([5], [[6, 1]])], [([5], [[6, 1]])]]
    rows = build_rows(layout, 4, 8, example_tasks=[0, 1, 2, 1, 3])
    tasks = ["zero", "one", "two", "three"]
    nan = float("nan")
    refuse_non_finite(Gradients(3.0, 3.0, 0.0, 1.0), rows, tasks, 7)
    with pytest.raises(NonFiniteError, match=r"step 7: the loss is nan .* examples: one \(1\), three \(1\)\. "):
        refuse_non_finite(Gradients(nan, nan, 0.0, nan, (rows.slice(2, 4),)), rows, tasks, 7)
    with pytest.raises(NonFiniteError, match=r"gradient norm inf; .* one \(2\), zero \(1\), two \(1\), three \(1\)\. "):
        refuse_non_finite(Gradients(3.0, 3.0, 0.0, float("inf")), rows, tasks, 7)
