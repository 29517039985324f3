from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from t0train.data import RowBatch
from t0train.model import T5, Batch, loss, loss_denominator, token_scores
from tests.model.oracle import V10, V11, as_rows, close, grad_of, make_model, random_examples

CONFIGS = {"v1.1": V11, "v1.0": V10}
WIDTHS = (40, 16)


def eight_rows() -> RowBatch:
    """Rows that differ much in their number of targets, one with several examples."""
    examples = random_examples([(10 + 3 * index, [1 + 2 * index]) for index in range(7)] + [(8, [3]), (5, [2])])
    return as_rows([*([example] for example in examples[:7]), examples[7:]], *WIDTHS)


def full_logits_loss(model: T5, batch: Batch, z_loss: float) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy and z-loss with torch's own function over all logits."""
    logits = model(batch)
    real = batch.labels > 0
    cross_entropy = functional.cross_entropy(logits[real], batch.labels[real], reduction="sum")
    return cross_entropy, z_loss * logits[real].logsumexp(-1).square().sum()


def gradients(model: T5, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {name: grad_of(parameter).clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("version", CONFIGS)
@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_equals_full_logits(version: str, chunk: int) -> None:
    model, batch = make_model(CONFIGS[version]), Batch.from_rows(eight_rows())
    expected = full_logits_loss(model, batch, z_loss=1e-2)
    output = loss(model, batch, denominator=5.0, z_loss=1e-2, chunk=chunk)
    assert output.cross_entropy.item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert output.z_loss.item() == pytest.approx(expected[1].item(), rel=1e-5)
    assert output.total.item() == pytest.approx(torch.stack(list(expected)).sum().item() / 5, rel=1e-5)
    assert int(output.tokens) == int((batch.labels > 0).sum())
    ours, theirs = gradients(model, output.total), gradients(model, torch.stack(list(expected)).sum() / 5)
    for name, gradient in ours.items():
        assert close(gradient, theirs[name], 1e-5), name


def test_denominators_by_hand() -> None:
    rows = eight_rows()
    assert loss_denominator("padded", rows) == 8 * 16
    assert loss_denominator("tokens", rows) == sum(1 + 2 * index for index in range(7)) + 3 + 2
    assert loss_denominator("examples", rows) == 9


@pytest.mark.parametrize("kind", ["padded", "tokens", "examples"])
@pytest.mark.parametrize("config", [V11, replace(V11, dropout=0.3)], ids=["no dropout", "mesh dropout"])
def test_micro_batches_give_the_same_loss_and_gradients(kind: Any, config: Any) -> None:
    model, rows = make_model(config), eight_rows()
    denominator = loss_denominator(kind, rows)
    results = []
    for size in (8, 1, 2):  # 1x8, 8x1, 4x2
        model.zero_grad()
        totals = []
        for start in range(0, 8, size):
            output = loss(model, Batch.from_rows(rows.slice(start, start + size), seed=4), denominator)
            output.total.backward()
            totals.append(output.total.item())
        results.append((sum(totals), {name: grad_of(p).clone() for name, p in model.named_parameters()}))
    for total, of_size in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-5)
        for name, gradient in of_size.items():
            assert close(gradient, results[0][1][name], 1e-5), name


def test_scaling_the_total_scales_the_gradients() -> None:
    model, batch = make_model(V11), Batch.from_rows(eight_rows())
    once = gradients(model, loss(model, batch, denominator=1.0).total)
    thrice = gradients(model, 3 * loss(model, batch, denominator=1.0).total)
    assert all(close(thrice[name], 3 * once[name]) for name in once)


def test_the_gradient_of_a_bf16_head_is_summed_in_fp32() -> None:
    """As DeepSpeed holds the head. Summed in bf16, 40 chunks would lose two bits and more."""
    model, batch = make_model(V11).to(torch.bfloat16), Batch.from_rows(eight_rows())
    assert len(batch.real) >= 40
    summed = []
    for chunk in (1, 1024):
        model.zero_grad()
        loss(model, batch, denominator=1.0, chunk=chunk).total.backward()
        summed.append(grad_of(model.lm_head.weight).float())
    assert (summed[0] - summed[1]).norm() < 2**-8 * summed[1].norm()


def test_a_batch_without_targets_has_no_loss() -> None:
    model, rows = make_model(V11), eight_rows()
    rows.labels[:] = 0
    output = loss(model, Batch.from_rows(rows), denominator=1.0)
    output.total.backward()
    assert float(output.total) == 0
    assert int(output.tokens) == 0
    assert all(float(parameter.grad.abs().max()) == 0 for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("version", CONFIGS)
def test_token_scores_equal_log_softmax(version: str) -> None:
    model, rows = make_model(CONFIGS[version]), eight_rows()
    batch = Batch.from_rows(rows)
    expected = model(batch).double().log_softmax(-1).gather(2, batch.labels[..., None])[..., 0].detach().numpy()
    scores = token_scores(model, batch, chunk=5)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    np.testing.assert_allclose(scores.numpy(), np.where(rows.labels > 0, expected, 0), rtol=1e-5, atol=1e-6)


def test_full_logits_are_never_held() -> None:
    """The largest tensor with a vocabulary dimension has `chunk` rows."""
    model, batch = make_model(V11), Batch.from_rows(eight_rows())
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.ndim == 2:
                rows, columns = result.shape
                if columns == V11.vocab_size and rows != V11.d_model:  # d_model rows: the head's weights, transposed
                    largest = max(largest, rows)
            return result

    with Watch():  # type: ignore[no-untyped-call]
        loss(model, batch, denominator=1.0, chunk=4).total.backward()
    assert largest == 4
