"""FSDP and HSDP: parameters, gradients and optimizer state are sharded by rows (torch's `fully_shard`).

T5's wrap plan: one group for each block; one for the two relative-bias tables, which are read before the blocks; and
the root group with the embedding, the head and the final norms. A tied embedding is one parameter of the root group.

Precision: shards, gradients and their sums are in float32. With `precision: bf16` blocks are gathered in bfloat16 and
compute in it under the same autocast as in one process (only their norm scales see the rounding); the root group and
the tables are gathered in float32, so that embedding and head have the same gradients as in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from t0train.config import RunConfig
from t0train.distributed.engine import Engine, LossModule
from t0train.distributed.world import World
from t0train.model import T5


class FsdpEngine(Engine):
    """Every rank holds a shard of each parameter. In HSDP there are several such groups, which are replicas.

    Gradients are reduce-scattered after every micro-batch: accumulating them unreduced would cost every rank the memory
    of all gradients. The all-reduce between replicas waits for the last micro-batch.

    Args:
        model: as in `Engine`.
        config: the run.
        world: the processes.
        replicas: of the model: 1 for FSDP, more for HSDP.
    """

    def __init__(self, model: T5, config: RunConfig, world: World, replicas: int = 1) -> None:
        self.replicas = replicas
        super().__init__(model, config, world)

    def shard(self, loss_module: LossModule) -> nn.Module:
        """See `Engine`."""
        device, size = self.world.device.type, self.world.size
        if self.replicas == 1:
            mesh = init_device_mesh(device, (size,), mesh_dim_names=("shard",))
        else:
            shape = (self.replicas, size // self.replicas)
            mesh = init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard"))
        exact = MixedPrecisionPolicy(torch.float32, torch.float32, cast_forward_inputs=False)
        bf16 = self.config.precision == "bf16"
        blocks = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False) if bf16 else exact
        stacks = (self.model.encoder, self.model.decoder)
        fully_shard([stack.bias_embedding for stack in stacks], mesh=mesh, mp_policy=exact, reshard_after_forward=False)
        for stack in stacks:
            for block in stack.block:
                fully_shard(block, mesh=mesh, mp_policy=blocks)
        fully_shard(loss_module, mesh=mesh, mp_policy=exact, reshard_after_forward=False)
        for module in loss_module.modules():
            if isinstance(module, FSDPModule):  # a sum, where the default is a mean
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        self.materialise()
        return loss_module

    @contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """See `Engine`."""
        root = cast(FSDPModule, self.module)
        root.set_is_last_backward(is_last)
        root.set_reshard_after_backward(is_last, recurse=False)  # gather embedding and head once for the whole step
        if self.replicas > 1:
            root.set_requires_all_reduce(is_last)
        yield
