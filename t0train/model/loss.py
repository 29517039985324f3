"""Cross-entropy and z-loss of real targets, and their log-probabilities, without materialising the full logits.

The original (mesh_tensorflow/transformer/transformer.py, `_compute_loss`): per real target
`logZ - logit[label] + z_loss * logZ ** 2`, summed, over a constant denominator. Logits become float32 for a chunk of
positions at a time; the gradients by hidden states and head are taken on the spot, in the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from t0train.model.batch import Batch
from t0train.model.t5 import T5

if TYPE_CHECKING:
    from t0train.data import RowBatch, RowPlan

Denominator = Literal["padded", "tokens", "examples"]


@dataclass(frozen=True)
class LossOutput:
    """The result of `loss`; the sums are over real targets and detached.

    Attributes:
        total: (cross_entropy + z_loss) / denominator, differentiable.
        cross_entropy: summed token cross-entropy in nats.
        z_loss: summed z-loss, its weight included.
        tokens: number of real targets.
    """

    total: Tensor
    cross_entropy: Tensor
    z_loss: Tensor
    tokens: Tensor


def loss_denominator(kind: Denominator, rows: RowBatch | RowPlan) -> float:
    """The divisor of a step's summed loss. Compute it for the whole step, before splitting into micro-batches.

    Args:
        kind: `padded` counts every target slot, padding included (the original); `tokens` the real targets;
            `examples` the examples.
        rows: all rows of the step, over all ranks.
    """
    if kind == "padded":
        return float(rows.target_slots)
    return float(rows.target_tokens if kind == "tokens" else len(rows.example_ids))


def loss(model: T5, batch: Batch, denominator: float, z_loss: float = 1e-4, chunk: int = 1024) -> LossOutput:
    """Loss of a batch or micro-batch.

    Args:
        model: the model.
        batch: packed rows.
        denominator: see `loss_denominator`; the same for all micro-batches of a step, whose totals then add up.
        z_loss: weight of logZ ** 2.
        chunk: positions whose logits are in memory at once.
    """
    states, labels = _real_targets(model, batch)
    arguments = (states, model.head_weight, labels, z_loss, denominator, chunk, torch.is_grad_enabled())
    sums = _HeadLoss.apply(*arguments)  # type: ignore[no-untyped-call]
    total, cross_entropy, z_sum = cast(tuple[Tensor, Tensor, Tensor], sums)
    return LossOutput(total, cross_entropy, z_sum, torch.tensor(len(labels)))


@torch.no_grad()
def token_scores(model: T5, batch: Batch, chunk: int = 1024) -> Tensor:
    """Log-probability of each label: [rows, targets], float32, 0 on padding."""
    states, labels = _real_targets(model, batch)
    scores = torch.zeros(batch.labels.numel(), device=states.device)
    if len(labels):
        parts = []
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = functional.linear(states[part], model.head_weight.to(states.dtype)).float()
            parts.append(_picked(logits, labels[part]) - logits.logsumexp(-1))
        scores.index_copy_(0, batch.real, torch.cat(parts))
    return scores.view_as(batch.labels)


def _real_targets(model: T5, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scaled hidden states [targets, d_model] and labels [targets]."""
    states = model.decode_states(batch).flatten(0, 1).index_select(0, batch.real)
    return states * model.head_scale, batch.labels.flatten().index_select(0, batch.real)


def _picked(logits: Tensor, labels: Tensor) -> Tensor:
    """[n, vocab] and [n] to the label's logit [n]."""
    return logits.gather(1, labels[:, None])[:, 0]


class _HeadLoss(torch.autograd.Function):
    """(states [n, d], weight [vocab, d], labels [n]) -> total, summed cross-entropy, summed z-loss."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        labels: Tensor,
        z_weight: float,
        denominator: float,
        chunk: int,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        cross_entropy = torch.zeros((), device=states.device)
        z_sum = torch.zeros_like(cross_entropy)
        need_states, need_weight = (differentiate and need for need in ctx.needs_input_grad[:2])
        grad_states = torch.empty_like(states) if need_states else None
        exact = torch.promote_types(
            weight.dtype, torch.float32
        )  # for DeepSpeed: bf16 weights, gradients summed in fp32
        grad_weight = torch.zeros_like(weight, dtype=exact) if need_weight else None
        compute_weight = weight.to(states.dtype)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = functional.linear(states[part], compute_weight).float()
            log_z = logits.logsumexp(-1)
            cross_entropy += (log_z - _picked(logits, labels[part])).sum()
            z_sum += z_weight * log_z.square().sum()
            if not (need_states or need_weight):
                continue
            # d/dlogits of log_z - logit[label] + z log_z^2  =  softmax * (1 + 2 z log_z) - onehot(label)
            logits.sub_(log_z[:, None]).exp_().mul_((1 + 2 * z_weight * log_z)[:, None])
            logits.scatter_add_(1, labels[part, None], logits.new_full((len(log_z), 1), -1.0))
            grad_logits = (logits / denominator).to(states.dtype)
            if grad_states is not None:
                grad_states[part] = grad_logits @ compute_weight
            if grad_weight is not None:
                grad_weight += grad_logits.T @ states[part]
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(cross_entropy, z_sum)
        return (cross_entropy + z_sum) / denominator, cross_entropy, z_sum

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factor = gradients[0]
        grad_states, grad_weight = ctx.saved_tensors
        return (
            None if grad_states is None else grad_states * factor.to(grad_states.dtype),
            None if grad_weight is None else (grad_weight * factor).to(ctx.weight_dtype),
            *[None] * 5,
        )
