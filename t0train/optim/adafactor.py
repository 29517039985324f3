"""Adafactor as T5 and T0 were trained with it: factored second moments, relative steps, no momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from t0train.core.errors import UserError, nearest
from t0train.optim.flat import FlatPart, Partition, zero_slots
from t0train.optim.maths import factored_axes
from t0train.optim.part import Part, ShardPart, shard_group, update_together, zero_moment

if TYPE_CHECKING:
    from t0train.optim.zero import ZeroLayout


@dataclass(frozen=True)
class Preset:
    """Which second moments are factored: the one thing on which the implementations of Adafactor differ here."""

    min_dim_size_to_factor: int
    last_two: bool


PRESETS = {
    # mesh_tensorflow/optimize.py: the two longest dimensions, if both reach 128 (so not the relative bias tables)
    "t5": Preset(min_dim_size_to_factor=128, last_two=False),
    # transformers/optimization.py: every tensor of two or more dimensions, over the last two
    "hf": Preset(min_dim_size_to_factor=1, last_two=True),
}


class Adafactor(torch.optim.Optimizer):
    """Adafactor after Mesh TensorFlow, with parameter scaling, update clipping and no momentum.

    The same update however parameters are held: whole (one process, DDP), as row shards (FSDP, HSDP: DTensors), or,
    once `t0train.optim.bind_zero` was called, as the flat partitions of DeepSpeed's ZeRO. Sharded, a step takes two
    all-reduces in all (ZeRO: two for each flat partition) and leaves the update in the gradient's memory.

    The state is in fp32 (fp64 for fp64 parameters) and holds `step` and either `row` and `column` (`n + m` numbers for
    an `[n, m]` matrix) or `moment` (as many as the parameter has). `optimizer_state` gives it in a form that does not
    depend on how parameters are held.

    Args:
        params: parameters, (name, parameter) pairs, or parameter groups.
        lr: relative learning rate: an update's RMS is at most `lr * clip_threshold * max(RMS(parameter), 1e-3)`.
        preset: "t5" or "hf", see `PRESETS`.
        min_dim_size_to_factor: smallest dimension that is factored; None takes the preset's.
        clip_threshold: largest RMS of an update, before `lr` and the parameter scale.
        step_offset: steps that the decay clock counts as done before the first one: `1 - (s + 1 + offset)^-0.8` with
            s steps done. (In optax and Mesh TensorFlow an offset is subtracted: theirs is the negative of this one.)

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
        self.slots: dict[str, dict[str, Tensor]] = {}  # under ZeRO, in place of `state`
        self._layout: ZeroLayout | None = None
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

    def bind(self, layout: ZeroLayout) -> None:
        """From now on, with a fresh state, parameter groups hold ZeRO's flat partitions; see `bind_zero`."""
        self._layout = layout
        self._sizes = {piece.name: piece.numel for partition in layout.partitions for piece in partition.pieces}
        self.slots = {
            piece.name: zero_slots(piece, partition.flat, self.param_groups[partition.group])
            for partition in layout.partitions
            for piece in partition.pieces
        }

    def state_dict(self) -> dict[str, Any]:
        """As `torch.optim.Optimizer` has it; refused under ZeRO, whose flat state fits one number of processes."""
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
            UserError: parameters in half precision, of DeepSpeed's ZeRO before `bind_zero`, or sharded otherwise than
                by rows.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        buckets: dict[dist.ProcessGroup, list[tuple[str, Part]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self._layout is not None:
                    self._update_partition(self._layout.partition_of(parameter), group)
                elif (name := self._names.get(parameter)) is None:
                    raise UserError(
                        "Adafactor was given flat partitions in place of its parameters; call "
                        "t0train.optim.bind_zero(optimizer, engine) right after deepspeed.initialize."
                    )
                elif isinstance(parameter, DTensor):
                    bucket = buckets.setdefault(shard_group(parameter, name), [])
                    bucket.append((name, ShardPart(parameter, self.initialised(parameter, group), group)))
                else:
                    whole = Part(parameter, parameter.grad, parameter.shape, self.initialised(parameter, group), group)
                    (self._update_rms[name],) = update_together([whole])
        for process_group, named in buckets.items():
            measured = update_together([part for _, part in named], process_group)
            self._update_rms.update(zip((name for name, _ in named), measured, strict=True))
        return loss

    def _update_partition(self, partition: Partition, group: dict[str, Any]) -> None:
        parts = [FlatPart(piece, partition.flat, self.slots[piece.name], group) for piece in partition.pieces]
        measured = update_together(parts, partition.process_group)
        self._update_rms.update(zip((piece.name for piece in partition.pieces), measured, strict=True))

    def initialised(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The state of a parameter of this group, made of zeros if it has none.

        Raises:
            UserError: a parameter in half precision.
        """
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            if parameter.dtype not in (torch.float32, torch.float64):
                raise UserError(
                    f"Adafactor was given {parameter.dtype} parameters; keep them in float32 and compute in bf16: "
                    "its steps are smaller than half precision resolves."
                )
            axes = factored_axes(parameter.shape, group["min_dim_size_to_factor"], group["last_two"])
            reduced = {"row": axes[1], "column": axes[0]} if axes else {"moment": None}
            state["step"] = torch.zeros((), dtype=torch.int64)
            state.update({name: zero_moment(parameter, axis) for name, axis in reduced.items()})
        return state
