"""DeepSpeed's ZeRO 1, 2 and 3, with updates that are exact for Adafactor and AdamW (see `t0train.optim.zero`).

DeepSpeed averages gradients over processes; the loss is multiplied by their number, so that they are summed.
With `precision: bf16` the weights that compute are bfloat16, over fp32 masters in the partitions.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from t0train.config import RunConfig
from t0train.dist.engine import Engine, Training
from t0train.dist.world import World
from t0train.dist.zero_config import deepspeed_config
from t0train.model import T5, Batch
from t0train.optim import bind_zero, build_optimizer, import_deepspeed, load_optimizer_state, optimizer_state


class ZeroEngine(Engine):
    """The strategy `deepspeed`."""

    module: Any  # a deepspeed.DeepSpeedEngine

    def __init__(self, model: T5, config: RunConfig, world: World) -> None:
        self.model, self.world, self.config = model, world, config.train
        settings = deepspeed_config(config)
        training = Training(model, config.train.loss.z_loss, config.train.loss.chunk)
        is_bf16 = settings["bf16"]["enabled"]
        exact = {name: parameter.detach().clone() for name, parameter in model.named_parameters()} if is_bf16 else {}
        self.optimizer = build_optimizer(model.named_parameters(), config.optimizer)
        deepspeed = import_deepspeed()
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of optimizers that it does not know
        # it calls what torch has renamed, thousands of times
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
        self.module = deepspeed.initialize(
            model=training, optimizer=self.optimizer, config=settings, dist_init_required=False
        )[0]
        self.layout = bind_zero(self.optimizer, self.module)
        if is_bf16:  # the masters were made of the rounded weights
            self.layout.load_masters(exact)

    def backward(self, batch: Batch, denominator: float, is_last: bool) -> Tensor:
        """See `Engine`."""
        self.module.set_gradient_accumulation_boundary(is_last)
        total, cross_entropy, z_loss = self.module(batch, denominator)
        self.module.backward(total * self.world.size)
        if not is_last:
            self.module.step()  # counts the micro-batch; parameters change at the last one only
        return torch.stack([total.detach().float(), cross_entropy.float(), z_loss.float()])

    def squared_norm(self) -> Tensor:
        """See `Engine`."""
        wrapper = self.module.optimizer
        if hasattr(wrapper, "fp32_groups_gradient_flat_partition"):
            return get_total_norm(wrapper.fp32_groups_gradient_flat_partition).square()
        # the others tell every process the whole norm
        is_stage_3 = hasattr(wrapper, "_get_norm_groups")
        norms = torch.stack(wrapper._get_norm_groups()) if is_stage_3 else wrapper.scaled_global_norm().reshape(1)
        norms = norms.masked_fill(norms < 0, float("nan"))  # DeepSpeed's word for a norm that is not finite
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
        return {"model": self.layout.masters(), "optimizer": optimizer_state(self.optimizer, self.layout)}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Engine`."""
        self.layout.load_masters(state["model"])
        load_optimizer_state(self.optimizer, state["optimizer"], self.layout)
