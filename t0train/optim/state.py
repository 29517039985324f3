"""An optimizer's state in one form under every strategy: tensors of full shape by parameter name.

`{name: {"step", "row", "column" | "moment"}}` for Adafactor, `{name: {"step", "exp_avg", "exp_avg_sq"}}` for AdamW.
A value is a DTensor where it is sharded; all others are the same on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from t0train.core.errors import UserError
from t0train.optim.adafactor import Adafactor, Slots, local


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Slots]:
    """The state of every parameter by name, zeros before the first step. Call it on every rank.

    These are the optimizer's own tensors, so that a checkpoint can be read into them. For ZeRO see
    `t0train.distributed.zero.ZeroLayout.optimizer_state`.

    Args:
        optimizer: from `build_optimizer`.
    """
    return dict(_own(optimizer))


@torch.no_grad()
def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Set the whole state, as `optimizer_state` returned it under any strategy. Call it on every rank.

    Args:
        optimizer: from `build_optimizer`.
        state: DTensors of any placement, or tensors that are the same on every rank.

    Raises:
        UserError: other parameters, moments or shapes.
    """
    own = dict(_own(optimizer))
    refuse_others(own, state)
    for name, slots in own.items():
        for key, target in slots.items():
            assign(f"{key} of {name}", target, state[name][key])


def _own(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Slots]]:
    for group in optimizer.param_groups:
        if "param_names" not in group:
            raise UserError("the optimizer's state is by name: build it from `model.named_parameters()`.")
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            if isinstance(optimizer, Adafactor):
                yield name, optimizer.initialised(parameter, group)
            else:
                yield name, adamw_slots(optimizer, parameter)


def adamw_slots(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Slots:
    """AdamW's state of a tensor, initialised as `torch.optim.AdamW` does."""
    slots: Slots = optimizer.state[parameter]
    if not slots:
        slots["step"] = torch.tensor(0.0)
        slots["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        slots["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return slots


def assign(name: str, target: Tensor, value: Tensor) -> None:
    """Copy a value of full shape into the optimizer's own tensor; another shape is a `UserError` about `name`."""
    if target is value:
        return
    if target.shape != value.shape:
        raise UserError(
            f"the optimizer's {name} has the shape {tuple(target.shape)} here, but {tuple(value.shape)} in the state "
            "to be loaded: that is of another model."
        )
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    if isinstance(target, DTensor):
        whole = whole.to(target.device)
        whole = local(distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None))
    local(target).copy_(whole)


def refuse_others(own: Mapping[str, Slots], state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse a state of other parameters or of another optimizer, with a `UserError`."""
    if others := sorted(own.keys() ^ state.keys()):
        where = "missing from" if others[0] in own else "only in"
        raise UserError(
            f"{others[0]} is {where} the optimizer state to be loaded ({len(others)} parameters differ): that is of "
            "another model."
        )
    for name, slots in own.items():
        if slots.keys() != state[name].keys():
            raise UserError(
                f"the optimizer has {', '.join(slots)} for {name}, but the state to be loaded has "
                f"{', '.join(state[name])}: that is of another optimizer, optimizer.preset or "
                "optimizer.min_dim_size_to_factor."
            )
