"""The strategy `deepspeed`: ZeRO 1, 2 and 3.

DeepSpeed averages gradients over ranks; the loss is multiplied by their number, so that gradients are summed.
With `precision: bf16` the model computes in bfloat16, with fp32 master weights in the partitions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.distributed.engine import Engine, LossModule
from t0train.distributed.world import World
from t0train.distributed.zero.deepspeed_config import deepspeed_config, deepspeed_for
from t0train.distributed.zero.zero_layout import bind_zero
from t0train.model import T5, Batch
from t0train.optim import build_optimizer

_first_group: list[Any] = []


class ZeroEngine(Engine):
    """DeepSpeed's engine. Arguments as for `Engine`; the model is on the meta device.

    Of the fp32 weights a rank never holds more than its partition, a copy of that, and one whole parameter.

    Raises:
        UserError: invalid keys for DeepSpeed; or an earlier run in this process used DeepSpeed.
    """

    module: Any  # a deepspeed.DeepSpeedEngine

    def __init__(self, model: T5, config: RunConfig, world: World) -> None:
        self.model, self.world, self.config = model, world, config.train
        _refuse_another_group()
        deepspeed = deepspeed_for(world.device)
        settings = deepspeed_config(config, world.device)
        _give_marked_memory(model, world.device, is_bf16=settings["bf16"]["enabled"])
        self.optimizer = build_optimizer(model.named_parameters(), config.optimizer)
        self.module = deepspeed.initialize(
            model=LossModule(model, config.train.loss.z_loss, config.train.loss.chunk),
            optimizer=self.optimizer,
            config=settings,
            dist_init_required=False,
        )[0]
        self.layout = bind_zero(self.optimizer, self.module)

    def backward(self, batch: Batch, denominator: float, is_last: bool) -> Tensor:
        """See `Engine`."""
        self.module.set_gradient_accumulation_boundary(is_last)
        total, cross_entropy, z_loss = self.module(batch, denominator)
        self.module.backward(total * self.world.size)
        if not is_last:
            self.module.step()  # counts the micro-batch; only the last one updates parameters
        return torch.stack([total.detach().float(), cross_entropy.float(), z_loss.float()])

    def squared_norm(self) -> Tensor:
        """See `Engine`."""
        wrapper = self.module.optimizer
        if hasattr(wrapper, "fp32_groups_gradient_flat_partition"):
            return get_total_norm(wrapper.fp32_groups_gradient_flat_partition).square()
        # the others give every rank the whole norm
        is_stage_3 = hasattr(wrapper, "_get_norm_groups")
        norms = torch.stack(wrapper._get_norm_groups()) if is_stage_3 else wrapper.scaled_global_norm().reshape(1)
        norms = norms.masked_fill(norms < 0, float("nan"))  # DeepSpeed's value for a norm that is not finite
        return norms.square().sum() / self.world.size

    def step(self, rate: float, clip: float = 1.0) -> None:
        """See `Engine`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if clip < 1:
            self._scale_gradients(clip)
        self.module.step()

    def _scale_gradients(self, factor: float) -> None:
        wrapper = self.module.optimizer
        if hasattr(wrapper, "fp32_groups_gradient_flat_partition"):  # stage 1 in bf16
            torch._foreach_mul_(wrapper.fp32_groups_gradient_flat_partition, factor)
            return
        for held in wrapper.averaged_gradients.values():
            torch._foreach_mul_([held] if isinstance(held, Tensor) else list(held), factor)

    def state(self) -> dict[str, Any]:
        """See `Engine`; under ZeRO these are copies."""
        return {"model": self.layout.masters(), "optimizer": self.layout.optimizer_state(self.optimizer)}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Engine`."""
        self.layout.load_masters(state["model"])
        self.layout.load_optimizer_state(self.optimizer, state["optimizer"])


def _refuse_another_group() -> None:
    """DeepSpeed keeps the first process group that it sees, which is gone when the run ends."""
    if not _first_group:
        _first_group.append(dist.group.WORLD)
    if dist.group.WORLD is not _first_group[0]:
        raise UserError(
            "train.strategy: deepspeed works once in a process, and an earlier run of this one has used it; start each "
            "run in a process of its own, or use train.strategy: fsdp."
        )


@torch.no_grad()
def _give_marked_memory(model: T5, device: torch.device, is_bf16: bool) -> None:
    """Give a model on the meta device memory in compute precision, filled with distinct random numbers.

    DeepSpeed partitions it before the master weights are loaded; `bind_zero` checks the layout by these numbers.
    """
    model.to(torch.bfloat16 if is_bf16 else torch.float32).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        parameter.uniform_(-1, 1, generator=generator)
