"""Optimizers under DeepSpeed's ZeRO 1, 2 and 3, which give them flat partitions in place of parameters.

An optimizer that takes a flat partition for a parameter computes something else than Adafactor, and nothing warns.
`bind_zero` tells it which pieces of which parameters a partition holds, and gives the way to whole parameters and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from t0train.core.errors import UserError
from t0train.optim.adafactor import Adafactor
from t0train.optim.flat import Partition, Piece
from t0train.optim.partitions import STAGE_3, read_partitions, refuse_unknown


def import_deepspeed() -> ModuleType:
    """DeepSpeed, if it is a version whose partitions are known.

    Raises:
        UserError: not installed, or another version.
    """
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            "DeepSpeed is not installed: pip install 'deepspeed>=0.19,<0.20', or use train.strategy=fsdp."
        ) from error
    if not deepspeed.__version__.startswith("0.19."):
        raise UserError(
            f"DeepSpeed {deepspeed.__version__} is installed, but t0train knows how 0.19 partitions parameters; "
            "pip install 'deepspeed>=0.19,<0.20', or use train.strategy=fsdp."
        )
    # On a CPU it would compile a shared-memory helper for its inference at the first start; that takes minutes, and a
    # start that is killed meanwhile leaves a lock on which every later one hangs.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    module: ModuleType = deepspeed
    return module


class ZeroLayout:
    """The partitions of an engine's fp32 parameters, and the way to whole parameters and back.

    Every process must call its methods, in the same order.

    Attributes:
        partitions: one for each flat tensor that the optimizer is given.
    """

    def __init__(self, engine: Any, partitions: list[Partition]) -> None:
        self.partitions = partitions
        self._wrapper = engine.optimizer
        self._by_flat = {partition.flat: partition for partition in partitions}
        self._mesh = DeviceMesh.from_group(partitions[0].process_group, partitions[0].flat.device.type)

    def partition_of(self, flat: Tensor) -> Partition:
        """The partition that a tensor of the optimizer's groups is.

        Raises:
            UserError: DeepSpeed made the tensor after `bind_zero`.
        """
        if flat not in self._by_flat:
            raise UserError(
                "DeepSpeed gave the optimizer a tensor that was not there when bind_zero was called; give a new engine "
                "a new optimizer."
            )
        return self._by_flat[flat]

    def spread(self, partition: Partition, piece: Piece, elements: Tensor) -> DTensor:
        """Put the pieces of a parameter, or of something shaped like it, together and spread it by rows, as FSDP does.

        Args:
            partition: that the piece belongs to.
            piece: this process's.
            elements: what this process has of it.
        """
        whole = elements.new_zeros(piece.numel)
        whole.narrow(0, piece.start, piece.length).copy_(elements)
        dist.all_reduce(whole, group=partition.process_group)
        whole = whole.view(piece.shape)
        height = -(-len(whole) // self._mesh.size())
        first = height * self._mesh.get_local_rank()
        rows = whole[first : first + height].clone()
        return DTensor.from_local(
            rows, self._mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
        )

    def masters(self) -> dict[str, DTensor]:
        """Copies of the fp32 parameters by name, spread over the processes by rows; one at a time is whole."""
        return {
            piece.name: self.spread(partition, piece, piece.of(partition.flat.detach()))
            for partition in self.partitions
            for piece in partition.pieces
        }

    @torch.no_grad()
    def load_masters(self, state: Mapping[str, Tensor]) -> None:
        """Set the fp32 parameters, and from them the weights that the model computes with.

        Args:
            state: parameters of full shape by name: DTensors, or tensors that are the same on every process.

        Raises:
            UserError: a parameter is missing or has another shape.
        """
        is_stage_3 = type(self._wrapper).__name__ == STAGE_3
        if is_stage_3:
            self._wrapper.checkpoint_event_prologue()
        for partition in self.partitions:
            for piece in partition.pieces:
                piece.of(partition.flat).copy_(elements_of(state.get(piece.name), piece))
        if not is_stage_3:
            self._wrapper.update_lp_params()
            return
        for sub_group in range(len(self.partitions)):
            self._wrapper._reassign_or_swap_out_partitioned_parameters(sub_group)
        self._wrapper.checkpoint_event_epilogue()


def elements_of(value: Tensor | None, piece: Piece) -> Tensor:
    """The elements of a piece, out of a whole parameter.

    Raises:
        UserError: there is none, or it has another shape.
    """
    if value is None or value.shape != piece.shape:
        found = "nothing" if value is None else f"the shape {tuple(value.shape)}"
        raise UserError(f"{piece.name} has the shape {piece.shape} here, but {found} in the state to be loaded.")
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.reshape(-1).narrow(0, piece.start, piece.length)


def bind_zero(optimizer: torch.optim.Optimizer, engine: Any) -> ZeroLayout:
    """Tell an optimizer where `deepspeed.initialize` has put its parameters. Call it right after, on every process.

    Args:
        optimizer: the optimizer that was given to `deepspeed.initialize`.
        engine: what that returned.

    Raises:
        UserError: an engine or option under which updates are not known to be exact, or the layout is not as expected.
    """
    refuse_unknown(optimizer, engine)
    names = {parameter: name for name, parameter in engine.module.named_parameters()}
    layout = ZeroLayout(engine, read_partitions(engine, names))
    if isinstance(optimizer, Adafactor):
        optimizer.bind(layout)
    return layout
