"""Optimizers under DeepSpeed's ZeRO 1, 2 and 3, which hand them flat partitions in place of parameters.

If Adafactor took a flat partition for a parameter, it would silently compute something else. `bind_zero` tells it which
shards of which parameters a partition holds, and returns the layout, which converts to whole parameters and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from t0train.core.errors import UserError
from t0train.distributed.zero.flat import FlatShard, FlatShardUpdate, Partition, initial_slots
from t0train.distributed.zero.partitions import STAGE_3, read_partitions, refuse_unknown
from t0train.optim import Adafactor
from t0train.optim.adafactor import ParameterUpdate, Slots
from t0train.optim.state import adamw_slots, assign, refuse_others


class ZeroLayout:
    """The partitions of an engine's fp32 parameters, and the conversion to whole parameters and back.

    Every rank must call its methods, in the same order.

    Attributes:
        partitions: one for each flat tensor of the optimizer.
    """

    def __init__(self, engine: Any, partitions: list[Partition]) -> None:
        self.partitions = partitions
        self._wrapper = engine.optimizer
        self._by_flat = {partition.flat: partition for partition in partitions}
        self._mesh = DeviceMesh.from_group(partitions[0].process_group, partitions[0].flat.device.type)

    def partition_of(self, flat: Tensor) -> Partition:
        """The partition behind a tensor of the optimizer's groups.

        Raises:
            UserError: DeepSpeed created the tensor after `bind_zero`.
        """
        if flat not in self._by_flat:
            raise UserError(
                "DeepSpeed gave the optimizer a tensor that was not there when bind_zero was called; give a new engine "
                "a new optimizer."
            )
        return self._by_flat[flat]

    def shards(self) -> Iterator[tuple[Partition, FlatShard]]:
        """This rank's shard of every parameter, with its partition."""
        return ((partition, shard) for partition in self.partitions for shard in partition.shards)

    def sizes(self) -> dict[str, int]:
        """See `t0train.optim.adafactor.FlatLayout`."""
        return {shard.name: shard.numel for _, shard in self.shards()}

    def initial_slots(self, groups: Sequence[Mapping[str, Any]]) -> dict[str, Slots]:
        """See `t0train.optim.adafactor.FlatLayout`."""
        return {
            shard.name: initial_slots(shard, partition.flat, groups[partition.group])
            for partition, shard in self.shards()
        }

    def updates(
        self, flat: Tensor, slots: Mapping[str, Slots], options: Mapping[str, Any]
    ) -> tuple[dict[str, ParameterUpdate], dist.ProcessGroup]:
        """See `t0train.optim.adafactor.FlatLayout`."""
        partition = self.partition_of(flat)
        updates: dict[str, ParameterUpdate] = {
            shard.name: FlatShardUpdate(shard, flat, slots[shard.name], options) for shard in partition.shards
        }
        return updates, partition.process_group

    def spread(self, partition: Partition, shard: FlatShard, elements: Tensor) -> DTensor:
        """Gather a parameter, or something of its shape, from its flat shards, and shard it by rows, as FSDP does.

        Args:
            partition: the shard's.
            shard: this rank's.
            elements: this rank's elements of it.
        """
        whole = elements.new_zeros(shard.numel)
        whole.narrow(0, shard.start, shard.length).copy_(elements)
        dist.all_reduce(whole, group=partition.process_group)
        whole = whole.view(shard.shape)
        height = -(-len(whole) // self._mesh.size())
        first = height * self._mesh.get_local_rank()
        rows = whole[first : first + height].clone()
        return DTensor.from_local(
            rows, self._mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
        )

    def masters(self) -> dict[str, DTensor]:
        """Copies of the fp32 parameters by name, sharded by rows; only one at a time is whole."""
        return {
            shard.name: self.spread(partition, shard, shard.of(partition.flat.detach()))
            for partition, shard in self.shards()
        }

    @torch.no_grad()
    def load_masters(self, state: Mapping[str, Tensor]) -> None:
        """Set the fp32 parameters, and from them the weights in compute precision.

        Args:
            state: parameters of full shape by name: DTensors, or tensors that are the same on every rank.

        Raises:
            UserError: a parameter is missing or has another shape.
        """
        is_stage_3 = type(self._wrapper).__name__ == STAGE_3
        if is_stage_3:
            self._wrapper.checkpoint_event_prologue()
        for partition, shard in self.shards():
            shard.of(partition.flat).copy_(elements_of(state.get(shard.name), shard))
        if not is_stage_3:
            self._wrapper.update_lp_params()
            return
        for sub_group in range(len(self.partitions)):
            self._wrapper._reassign_or_swap_out_partitioned_parameters(sub_group)
        self._wrapper.checkpoint_event_epilogue()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Slots]:
        """As `t0train.optim.optimizer_state`, but copies, which `load_optimizer_state` takes back."""
        state = {}
        for partition, shard in self.shards():
            shared, held = _split(optimizer, partition, shard)
            spread = {key: self.spread(partition, shard, value) for key, value in held.items()}
            state[shard.name] = {key: value.clone() for key, value in shared.items()} | spread
        return state

    @torch.no_grad()
    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """As `t0train.optim.load_optimizer_state`.

        Raises:
            UserError: other parameters, moments or shapes, or (AdamW) parameters at different steps.
        """
        split = {shard.name: (shard, *_split(optimizer, partition, shard)) for partition, shard in self.shards()}
        refuse_others({name: shared | held for name, (_, shared, held) in split.items()}, state)
        if not isinstance(optimizer, Adafactor):
            self._refuse_different_steps(state)
        for name, (shard, shared, held) in split.items():
            for key, target in shared.items():
                assign(f"{key} of {name}", target, state[name][key])
            for key, target in held.items():
                target.copy_(elements_of(state[name][key], shard))

    def _refuse_different_steps(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        for partition in self.partitions:
            steps = {int(state[shard.name]["step"]) for shard in partition.shards}
            if len(steps) > 1:
                raise UserError(
                    f"the AdamW state to be loaded has parameters at different steps ({sorted(steps)}), but under ZeRO "
                    "there is one step for them all; use train.strategy=fsdp."
                )


def _split(optimizer: torch.optim.Optimizer, partition: Partition, shard: FlatShard) -> tuple[Slots, Slots]:
    """A parameter's state under ZeRO: what every rank holds whole, and what is sharded."""
    if isinstance(optimizer, Adafactor):
        slots = optimizer.slots[shard.name]
        return {key: slots[key] for key in slots if key != "moment"}, {
            key: slots[key] for key in slots if key == "moment"
        }
    flat = adamw_slots(optimizer, partition.flat)
    return {"step": flat["step"]}, {key: shard.of(value) for key, value in flat.items() if key != "step"}


def elements_of(value: Tensor | None, shard: FlatShard) -> Tensor:
    """A shard's elements of a whole parameter.

    Raises:
        UserError: there is none, or it has another shape.
    """
    if value is None or value.shape != shard.shape:
        found = "nothing" if value is None else f"the shape {tuple(value.shape)}"
        raise UserError(f"{shard.name} has the shape {shard.shape} here, but {found} in the state to be loaded.")
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.reshape(-1).narrow(0, shard.start, shard.length)


def bind_zero(optimizer: torch.optim.Optimizer, engine: Any) -> ZeroLayout:
    """Tell an optimizer where `deepspeed.initialize` has put its parameters. Call it right after that, on every rank.

    Args:
        optimizer: the optimizer that was given to `deepspeed.initialize`.
        engine: what `deepspeed.initialize` returned.

    Raises:
        UserError: an engine or option under which updates are not known to be exact, or an unexpected layout.
    """
    refuse_unknown(optimizer, engine)
    names = {parameter: name for name, parameter in engine.module.named_parameters()}
    layout = ZeroLayout(engine, read_partitions(engine, names))
    if isinstance(optimizer, Adafactor):
        optimizer.bind(layout)
    return layout
