"""Adafactor as T5 and T0 were trained with it: factored second moments, relative steps, no momentum.

From top to bottom: the optimizer; the update of one parameter, whole or sharded by rows; its arithmetic on tensors
(Shazeer & Stern 2018, as in mesh_tensorflow/optimize.py). Between ranks it needs only sums of squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from t0train.config.resolve import PRESETS, factored_axes
from t0train.core.errors import UserError, nearest

EPS_GRADIENT = 1e-30  # added to every squared gradient
EPS_PARAMETER = 1e-3  # smallest parameter scale

Slots = dict[str, Tensor]
"""The optimizer's state of one parameter by name: `step`, and `row` and `column`, or `moment`."""


class FlatLayout(Protocol):
    """What Adafactor needs to know of parameters that lie in flat partitions (DeepSpeed's ZeRO)."""

    def sizes(self) -> dict[str, int]:
        """Elements of each whole parameter, by name."""

    def initial_slots(self, groups: Sequence[Mapping[str, Any]]) -> dict[str, Slots]:
        """The state before the first step by name, given the optimizer's parameter groups."""

    def updates(
        self, flat: Tensor, slots: Mapping[str, Slots], options: Mapping[str, Any]
    ) -> tuple[dict[str, ParameterUpdate], dist.ProcessGroup]:
        """The updates by name of the parameters in a flat partition, and the ranks that hold their other shards."""


class Adafactor(torch.optim.Optimizer):
    """Adafactor after Mesh TensorFlow, with parameter scaling, update clipping and no momentum.

    The update is the same however parameters are held: whole (one process, DDP), as row shards (DTensors of FSDP and
    HSDP), or, after `bind`, as flat partitions of DeepSpeed's ZeRO. Sharded, a step takes two all-reduces in all (ZeRO:
    two for each flat partition) and overwrites the gradient with the update.

    The state is in fp32 (fp64 for fp64 parameters) and holds `step` and either `row` and `column` (`n + m` numbers for
    an `[n, m]` matrix) or `moment` (as many as the parameter has). `optimizer_state` returns it in a form that does
    not depend on how parameters are held.

    Args:
        params: parameters, (name, parameter) pairs, or parameter groups.
        lr: relative learning rate: an update's RMS is at most `lr * clip_threshold * max(RMS(parameter), 1e-3)`.
        preset: "t5" or "hf", see `t0train.config.resolve`.
        min_dim_size_to_factor: smallest dimension that is factored; None takes the preset's.
        clip_threshold: largest RMS of an update, before `lr` and the parameter scale.
        step_offset: steps that the decay counts as done before the first: `1 - (s + 1 + offset)^-0.8` after s steps.
            (optax and Mesh TensorFlow subtract an offset: theirs is the negative of this one.)

    Raises:
        UserError: unknown preset, negative offset.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        preset: Literal["t5", "hf"] = "t5",
        min_dim_size_to_factor: int | None = None,
        clip_threshold: float = 1.0,
        step_offset: int = 0,
    ) -> None:
        if preset not in PRESETS:
            raise UserError(f"unknown Adafactor preset {preset!r}; {nearest(preset, PRESETS)}")
        if step_offset < 0:
            raise UserError(
                f"optimizer.step_offset is {step_offset}, but it counts the steps done before the first one; use 0 "
                "or more (an offset of optax or Mesh TensorFlow has the opposite sign)."
            )
        chosen = PRESETS[preset]
        defaults = {
            "lr": lr,
            "min_dim_size_to_factor": min_dim_size_to_factor or chosen.min_dim_size_to_factor,
            "last_two": chosen.last_two,
            "clip_threshold": clip_threshold,
            "step_offset": step_offset,
        }
        self.slots: dict[str, Slots] = {}  # under ZeRO, in place of `state`
        self._layout: FlatLayout | None = None
        self._names: dict[Tensor, str] = {}
        self._sizes: dict[str, int] = {}
        self._update_rms: dict[str, Tensor] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, as `torch.optim.Optimizer` does."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        first = len(self._names)
        names = group.get("param_names") or [str(first + index) for index in range(len(group["params"]))]
        for name, parameter in zip(names, group["params"], strict=True):
            self._names[parameter] = name
            self._sizes[name] = parameter.numel()

    def bind(self, layout: FlatLayout) -> None:
        """Take the tensors of the parameter groups as flat partitions from now on, and begin with a fresh state."""
        self._layout = layout
        self._sizes = layout.sizes()
        self.slots = layout.initial_slots(self.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """As in `torch.optim.Optimizer`; refused under ZeRO, whose flat state fits one number of processes only."""
        if self._layout is not None:
            raise UserError(
                "Adafactor under ZeRO is saved by t0train's own checkpoints (t0train.optim.optimizer_state), which "
                "fit any number of processes; do not use engine.save_checkpoint."
            )
        return super().state_dict()

    @property
    def update_rms(self) -> dict[str, float]:
        """RMS of each parameter's last update before clipping, by name (by position where no names were given)."""
        if not self._update_rms:
            return {}
        values = torch.stack(list(self._update_rms.values())).tolist()  # one transfer from the device for all of them
        return dict(zip(self._update_rms, values, strict=True))

    @property
    def total_update_rms(self) -> float:
        """RMS of the last update before clipping, over all elements of all parameters; call it after a step."""
        sizes = [self._sizes[name] for name in self._update_rms]
        squares = [rms.square() * size for rms, size in zip(self._update_rms.values(), sizes, strict=True)]
        return float((torch.stack(squares).sum() / sum(sizes)).sqrt())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient. `closure` is called first, with gradients enabled.

        Raises:
            UserError: parameters in half precision, flat partitions before `bind`, or parameters sharded other than by
                rows.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        buckets: dict[dist.ProcessGroup, dict[str, ParameterUpdate]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self._layout is not None:
                    self._update_all(*self._layout.updates(parameter, self.slots, group))
                elif (name := self._names.get(parameter)) is None:
                    raise UserError(
                        "Adafactor was given flat partitions in place of its parameters; call "
                        "t0train.distributed.zero.bind_zero(optimizer, engine) right after deepspeed.initialize."
                    )
                elif isinstance(parameter, DTensor):
                    bucket = buckets.setdefault(_shard_group(parameter, name), {})
                    bucket[name] = RowShardUpdate(parameter, self.initialised(parameter, group), group)
                else:
                    slots = self.initialised(parameter, group)
                    whole = ParameterUpdate(parameter, parameter.grad, parameter.shape, slots, group)
                    self._update_all({name: whole}, None)
        for process_group, updates in buckets.items():
            self._update_all(updates, process_group)
        return loss

    def _update_all(self, updates: Mapping[str, ParameterUpdate], process_group: dist.ProcessGroup | None) -> None:
        measured = update_together(list(updates.values()), process_group)
        self._update_rms.update(zip(updates, measured, strict=True))

    def initialised(self, parameter: Tensor, group: dict[str, Any]) -> Slots:
        """The state of a parameter of this group, zeros if it had none.

        Raises:
            UserError: a parameter in half precision.
        """
        state: Slots = self.state[parameter]
        if not state:
            if parameter.dtype not in (torch.float32, torch.float64):
                raise UserError(
                    f"Adafactor was given {parameter.dtype} parameters; keep them in float32 and compute in bf16: "
                    "its steps are smaller than half precision resolves."
                )
            axes = factored_axes(parameter.shape, group["min_dim_size_to_factor"], group["last_two"])
            reduced = {"row": axes[1], "column": axes[0]} if axes else {"moment": None}
            state["step"] = torch.zeros((), dtype=torch.int64)
            state.update({name: _zero_moment(parameter, axis) for name, axis in reduced.items()})
        return state


class ParameterUpdate:
    """One step of one parameter that this rank holds whole; subclasses update a shard of one.

    The step is `begin`, `precondition` and `apply`; what the first two return is summed over ranks in between.

    Args:
        weight: this rank's shard of the parameter.
        gradient: its gradient.
        shape: of the whole parameter.
        state: `step` and this rank's shards of `row` and `column`, or of `moment`.
        options: the parameter group.
    """

    row_partial = column_partial = False  # the means over this rank's shard are only terms of the factor's means
    row_split = False  # the row factor itself is sharded
    in_place = False  # the update overwrites the gradient

    def __init__(
        self,
        weight: Tensor,
        gradient: Tensor,
        shape: Sequence[int],
        state: Slots,
        options: Mapping[str, Any],
    ) -> None:
        self.weight, self.shape, self.options = weight, tuple(shape), options
        self.update = gradient.to(weight.dtype)
        self.axes = factored_axes(shape, options["min_dim_size_to_factor"], options["last_two"])
        self.moments = [local(state[name]) for name in (("row", "column") if self.axes else ("moment",))]
        state["step"] += 1
        self.beta2 = decay(int(state["step"]) + options["step_offset"])
        self.partial: list[tuple[Tensor, Tensor]] = []
        self.row_mean: Tensor | None = None

    def begin(self) -> list[Tensor]:
        """Accumulate the squared gradients; returns what has to be summed over ranks before `precondition`."""
        self.parameter_sum = sum_square(self.weight)
        if self.axes is None:
            decay_towards(self.moments[0], self.update.square(), self.beta2)
            return [self.parameter_sum]
        partial = (self.row_partial, self.column_partial)
        for moment, mean, is_partial in zip(self.moments, self.mean_squares(self.axes), partial, strict=True):
            if is_partial:
                self.partial.append((moment, mean))
            else:
                decay_towards(moment, mean, self.beta2)
        sums = [self.parameter_sum, *(mean for _, mean in self.partial)]
        if self.row_split:
            self.row_mean = self.moments[0].sum(self.axes[0], keepdim=True).div_(self.shape[self.axes[0]])
            sums.append(self.row_mean)
        return sums

    def precondition(self) -> list[Tensor]:
        """Turn the gradient into the update before clipping; returns its sum of squares, to be summed over ranks."""
        if self.axes is None:
            self.multiply(self.moments[0].rsqrt())
        else:
            for moment, mean in self.partial:
                decay_towards(moment, mean, self.beta2)
            row, column = self.moments
            mean = row.mean(self.axes[0], keepdim=True) if self.row_mean is None else self.row_mean
            self.multiply(*roots(row, column, mean))
        self.update_sum = sum_square(self.update)
        return [self.update_sum]

    def apply(self) -> Tensor:
        """Change the parameter; returns the RMS of the update before clipping."""
        size = max(math.prod(self.shape), 1)
        update_rms = self.update_sum.div(size).sqrt_()
        parameter_rms = self.parameter_sum.div(size).sqrt_()
        scale = step_size(self.options["lr"], parameter_rms, update_rms, self.options["clip_threshold"])
        self.weight.sub_(self.update.mul_(scale))
        return update_rms

    def mean_squares(self, axes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Mean squared gradients for the row and the column factor, or this rank's terms of them."""
        return mean_squares(self.update.square(), axes, self.shape)

    def multiply(self, first: Tensor, *others: Tensor) -> None:
        """Multiply the gradient by factors that broadcast against it."""
        self.update = self.update.mul_(first) if self.in_place else self.update.mul(first)
        for other in others:
            self.update.mul_(other)


class RowShardUpdate(ParameterUpdate):
    """One step of this rank's rows of a parameter, perhaps none: a DTensor sharded along its first axis."""

    in_place = True

    def __init__(self, parameter: DTensor, state: Slots, options: Mapping[str, Any]) -> None:
        gradient = parameter.grad
        if not isinstance(gradient, DTensor) or gradient.placements != parameter.placements:
            raise UserError(
                f"Adafactor found a gradient that is not sharded as its parameter ({parameter.placements}) is; leave "
                "gradients as fully_shard makes them."
            )
        super().__init__(local(parameter), local(gradient), parameter.shape, state, options)
        if self.axes is not None:
            row_axis, column_axis = self.axes
            self.row_partial, self.column_partial = column_axis == 0, row_axis == 0
            self.row_split = row_axis == 0


def update_together(updates: Sequence[ParameterUpdate], process_group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """One step of several parameters in two all-reduces; returns the RMS of each update before clipping.

    Every rank of the process group must pass the same parameters in the same order.
    """
    _all_reduce([tensor for update in updates for tensor in update.begin()], process_group)
    _all_reduce([tensor for update in updates for tensor in update.precondition()], process_group)
    return [update.apply() for update in updates]


def _all_reduce(tensors: Sequence[Tensor], process_group: dist.ProcessGroup | None) -> None:
    if process_group is None:
        return
    bucket = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(bucket, group=process_group)
    for tensor, summed in zip(tensors, torch.split(bucket, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a DTensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _shard_group(parameter: DTensor, name: str) -> dist.ProcessGroup:
    """The process group over which a parameter's rows are sharded (in HSDP: without the replicas).

    Raises:
        UserError: the parameter is sharded other than by rows over one dimension of its mesh.
    """
    sharded = [dimension for dimension, placement in enumerate(parameter.placements) if placement != Replicate()]
    if len(sharded) != 1 or parameter.placements[sharded[0]] != Shard(0):
        raise UserError(
            f"Adafactor cannot update {name}, placed as {parameter.placements}: expected parameters sharded along "
            "their first axis over one mesh dimension; use train.strategy fsdp or hsdp without tensor parallelism."
        )
    return parameter.device_mesh.get_group(sharded[0])


def _zero_moment(parameter: Tensor, reduced: int | None) -> Tensor:
    """Zeros like a parameter whose axis `reduced` has length 1; sharded like it, unless that is the sharded axis."""
    shape = [1 if axis == reduced else length for axis, length in enumerate(parameter.shape)]
    if not isinstance(parameter, DTensor):
        return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
    whole = reduced == 0
    rows = [1 if axis == reduced else length for axis, length in enumerate(local(parameter).shape)]
    zeros = torch.zeros(shape if whole else rows, dtype=parameter.dtype, device=local(parameter).device)
    placements = [Replicate()] * parameter.device_mesh.ndim if whole else parameter.placements
    strides = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        zeros, parameter.device_mesh, placements, run_check=False, shape=torch.Size(shape), stride=strides
    )


def decay(clock: int) -> float:
    """Decay of the second moments at step `clock` (from 1): `1 - clock^-0.8`, so the first step keeps nothing."""
    return 1.0 - math.pow(clock, -0.8)


def mean_squares(squares: Tensor, axes: tuple[int, int], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means of squared gradients along each factored axis, without the 1e-30: (row, column).

    Reduced axes are kept with length 1, so that factors broadcast: `[n, 1]` and `[1, m]` for a matrix.

    Args:
        squares: squared gradients of the parameter or of a shard.
        axes: see `factored_axes`.
        lengths: shape of the whole parameter. Means along a sharded axis are summed over the shards.
    """
    row, column = axes
    return (
        squares.sum(column, keepdim=True).div_(lengths[column]),
        squares.sum(row, keepdim=True).div_(lengths[row]),
    )


def decay_towards(moment: Tensor, squares: Tensor, beta2: float) -> None:
    """`moment <- beta2 * moment + (1 - beta2) * (squares + 1e-30)` in place, no bias correction; uses up `squares`."""
    moment.lerp_(squares.add_(EPS_GRADIENT), 1.0 - beta2)


def roots(row: Tensor, column: Tensor, row_mean: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of a factored gradient: `(row / row_mean)^-1/2` and `column^-1/2`.

    `row_mean` is the row factor's mean along the row axis. The product of the two could exceed fp32's range where the
    update itself does not (rows without any gradient).
    """
    return (row / row_mean).rsqrt_(), column.rsqrt()


def sum_square(tensor: Tensor) -> Tensor:
    """Sum of the squares of all elements, as a scalar tensor (0 for an empty one)."""
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm.square_()


def step_size(lr: float, parameter_rms: Tensor, update_rms: Tensor, clip_threshold: float) -> Tensor:
    """The factor of the update: `lr * max(parameter RMS, 1e-3) / max(1, update RMS / threshold)`."""
    return lr * parameter_rms.clamp(min=EPS_PARAMETER) / (update_rms / clip_threshold).clamp(min=1.0)
