"""A model, its gradients and its optimizer, in one process; and replicated over several (DDP).

Under every strategy the gradient of a step is the sum over all rows of the step, on whichever rank, divided by the
denominator of the whole step. Nothing is averaged over ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from t0train.config import RunConfig
from t0train.config.schema import TrainConfig
from t0train.distributed.world import World
from t0train.model import T5, Batch, loss
from t0train.optim import build_optimizer, optimizer_state
from t0train.optim.adafactor import local


def precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The context in which the model computes: bf16 over fp32 parameters, or fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


class LossModule(nn.Module):
    """A module whose forward pass is the loss of a micro-batch: DDP, FSDP and DeepSpeed hook into module calls.

    It shares the model's submodules instead of containing the model, so that parameters keep the model's names.
    """

    model: T5

    def __init__(self, model: T5, z_loss: float, chunk: int) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        object.__setattr__(self, "model", model)  # not as a child
        self.z_loss, self.chunk = z_loss, chunk

    def forward(self, batch: Batch, denominator: float) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, differentiable, and the summed cross-entropy and z-loss."""
        output = loss(self.model, batch, denominator, self.z_loss, self.chunk)
        return output.total, output.cross_entropy, output.z_loss


class Engine:
    """The strategy `single`, and the base of those that share the work among processes.

    Args:
        model: on the meta device (each rank allocates its shard, uninitialised until `load_state`), or whole.
        config: the run.
        world: the processes.

    Attributes:
        model: the model; under some strategies its parameters are DTensors.
        optimizer: over the model's parameters.
        replicas: how many ranks hold the same gradient.
    """

    replicas = 1

    def __init__(self, model: T5, config: RunConfig, world: World) -> None:
        self.model, self.world, self.config = model, world, config.train
        self.module = self.shard(LossModule(model, config.train.loss.z_loss, config.train.loss.chunk))
        self.optimizer = build_optimizer(model.named_parameters(), config.optimizer)

    def shard(self, loss_module: LossModule) -> nn.Module:
        """Shard or replicate the module over ranks; returns the module to call in its place."""
        self.materialise()
        return loss_module

    def materialise(self) -> None:
        """Allocate this rank's shard of a model on the meta device."""
        if self.model.shared.weight.is_meta:
            self.model.to_empty(device=self.world.device)

    def backward(self, batch: Batch, denominator: float, is_last: bool) -> Tensor:
        """Accumulate the gradients of a micro-batch; those of the step are complete after its last one.

        Args:
            batch: the micro-batch; every rank passes the same number of them.
            denominator: of the whole step.
            is_last: whether it is the step's last one.

        Returns:
            This rank's loss, cross-entropy and z-loss, [3].
        """
        with self.accumulating(is_last):
            with precision(self.config, self.world.device):
                total, cross_entropy, z_loss = self.module(batch, denominator)
            total.backward()
        return torch.stack([total.detach().float(), cross_entropy, z_loss])

    @contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Around a micro-batch: skip communication that only the step's last one needs."""
        yield

    def squared_norm(self) -> Tensor:
        """This rank's term of the squared norm of the gradient, which is their sum over all ranks."""
        return get_total_norm(self._gradients()).square() / self.replicas

    def step(self, rate: float, clip: float = 1.0) -> None:
        """Update the parameters and drop the gradients.

        Args:
            rate: learning rate.
            clip: factor on the gradients; at most 1.
        """
        if clip < 1:
            torch._foreach_mul_(self._gradients(), clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _gradients(self) -> list[Tensor]:
        return [local(parameter.grad) for parameter in self.model.parameters() if parameter.grad is not None]

    def state(self) -> dict[str, Any]:
        """Parameters under `model` and optimizer state under `optimizer`, of full shape, by parameter name.

        A checkpoint, or initial weights, are read into these tensors, which are then passed to `load_state`.
        """
        parameters = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        return {"model": parameters, "optimizer": optimizer_state(self.optimizer)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Apply what was read into `state()`; a no-op here, where `state()` returns the tensors in use."""


class DdpEngine(Engine):
    """Every rank holds the whole model; gradients are all-reduced during the backward pass of the last micro-batch."""

    module: DistributedDataParallel

    def shard(self, loss_module: LossModule) -> nn.Module:
        """See `Engine`."""
        self.replicas = self.world.size
        self.materialise()
        # no init_sync: every rank loads the same weights itself
        module = DistributedDataParallel(loss_module, gradient_as_bucket_view=True, init_sync=False)
        module.register_comm_hook(
            None, lambda state, bucket: _summed(bucket)
        )  # it refuses annotations that are strings
        return module

    @contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """See `Engine`."""
        with nullcontext() if is_last else self.module.no_sync():
            yield


def _summed(bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own reduction divides by the number of processes."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return cast("torch.futures.Future[Tensor]", future.then(lambda done: done.value()[0]))
