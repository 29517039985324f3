"""Reading DeepSpeed's flat partitions from an engine.

The layout is read from attributes that are not part of DeepSpeed's API, so only known engines are accepted and all that
is read is checked. Offsets come from addresses: the low-precision weights are views of a buffer that is partitioned in
the same way as the fp32 one. (DeepSpeed's own `_hp_mapping`, and with it `safe_get_full_fp32_param`, is wrong under
`round_robin_gradients`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from t0train.core.errors import UserError
from t0train.distributed.zero.flat import FlatShard, Partition

STAGE_3 = "DeepSpeedZeroOptimizer_Stage3"
_ATTRIBUTES = {  # of each engine's optimizer: parameters, low-precision buffer, fp32 partition, ranks; each by group
    "DeepSpeedZeroOptimizer": (  # stages 1 and 2
        "bit16_groups",
        "bit16_groups_flat",
        "single_partition_of_fp32_groups",
        "real_dp_process_group",
    ),
    "BF16_Optimizer": (  # stage 1 in bf16 with gradients summed up in fp32
        "bf16_groups",
        "bf16_groups_flat",
        "fp32_groups_flat_partition",
        "real_dp_process_group",
    ),
    STAGE_3: (
        "fp16_groups",
        "fp16_partitioned_groups_flat",
        "fp32_partitioned_groups_flat",
        "sub_group_process_groups",
    ),
}


def refuse_unknown(optimizer: torch.optim.Optimizer, engine: Any) -> None:
    """Refuse engines and options under which the layout is not known or an update would not be exact.

    Raises:
        UserError: lists all that is not supported.
    """
    wrapper = engine.optimizer
    kind = type(wrapper).__name__
    zero = engine._config.zero_config
    reasons = {
        f"the engine class {type(engine).__name__}": type(engine).__name__ != "DeepSpeedEngine",
        f"ZeRO stage {int(zero.stage)} with the optimizer class {kind}": kind not in _ATTRIBUTES,
        "another optimizer than this one": getattr(wrapper, "optimizer", optimizer) is not optimizer,
        "offload_optimizer": _is_offloaded(zero.offload_optimizer),
        "offload_param": _is_offloaded(zero.offload_param),
        "zenflow": zero.zenflow is not None,
        "zero_hpz_partition_size": zero.zero_hpz_partition_size > 1,
        "zero_quantized_weights": zero.zero_quantized_weights or zero.zero_quantized_nontrainable_weights,
        "zero_quantized_gradients": zero.zero_quantized_gradients,
        "elastic_checkpoint": zero.elastic_checkpoint,
        "experts": bool(engine.has_moe_layers),
        "model parallelism": engine.mpu is not None or engine.autotp_size() > 1,
        "fp16 by torch_autocast": getattr(wrapper, "torch_autocast_gradscaler", None) is not None,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise UserError(
            f"this DeepSpeed configuration has {', '.join(found)}: the optimizer's update is known to be exact with "
            "ZeRO stages 1, 2 and 3 over all processes, without offload or quantisation. Change the configuration, or "
            "use train.strategy=fsdp."
        )


def _is_offloaded(config: Any) -> bool:
    return config is not None and str(getattr(config.device, "value", config.device)) != "none"


def read_partitions(engine: Any, names: Mapping[Tensor, str]) -> list[Partition]:
    """The flat partitions that an engine gives to its optimizer, checked across all ranks.

    Args:
        engine: a DeepSpeed engine that `refuse_unknown` accepted.
        names: of the model's parameters.

    Raises:
        UserError: the layout is not the expected one.
    """
    wrapper = engine.optimizer
    kind = type(wrapper).__name__
    try:
        groups = list(zip(*(getattr(wrapper, attribute) for attribute in _ATTRIBUTES[kind]), strict=True))
    except (AttributeError, ValueError) as error:
        raise _unexpected(str(error)) from error
    partitions, problems = [], []
    for index, (parameters, buffer, flat, process_group) in enumerate(groups):
        shards = []
        for parameter in parameters:
            read = _read_stage_3 if kind == STAGE_3 else _read_slice
            shard, weights = read(parameter, names.get(parameter, ""), buffer, process_group)
            shards.append(shard)
            problems += _problems_of(shard, weights, flat)
        group = wrapper.sub_group_to_group_id[index] if kind == STAGE_3 else index
        partitions.append(Partition(flat, tuple(shards), process_group, group))
        problems += _problems_between(shards, flat)
    wanted = {name for parameter, name in names.items() if parameter.requires_grad}
    if found := wanted.symmetric_difference(shard.name for partition in partitions for shard in partition.shards):
        problems.append(f"the parameters {sorted(found)} are not the ones that want gradients")
    _agree(problems, partitions)
    return partitions


def _read_slice(
    parameter: Tensor, name: str, buffer: Tensor, process_group: dist.ProcessGroup
) -> tuple[FlatShard, Tensor | None]:
    """Stages 1 and 2: the parameter is a view of the whole buffer, of which this rank owns one contiguous slice."""
    size = buffer.numel() // dist.get_world_size(process_group)
    first = size * dist.get_rank(process_group)
    offset = _offset(parameter.data, buffer)
    begin, end = max(offset, first), min(offset + parameter.numel(), first + size)
    if begin >= end:
        return FlatShard(name, tuple(parameter.shape), 0, 0, 0), parameter.data[:0].reshape(-1)
    shard = FlatShard(name, tuple(parameter.shape), begin - offset, end - begin, begin - first)
    inside = 0 <= offset <= buffer.numel() - parameter.numel() and parameter.data.is_contiguous()
    return shard, parameter.data.view(-1).narrow(0, shard.start, shard.length) if inside else None


def _read_stage_3(
    parameter: Tensor, name: str, buffer: Tensor, process_group: dist.ProcessGroup
) -> tuple[FlatShard, Tensor | None]:
    """Stage 3: each parameter is split into equal ranges, one per rank; the last ones end in padding."""
    held: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
    shape, numel = tuple(parameter.ds_shape), int(parameter.ds_numel)  # type: ignore[attr-defined]
    start = min(held.numel() * dist.get_rank(process_group), numel)
    length = min(held.numel(), numel - start)
    offset = _offset(held, buffer)
    inside = 0 <= offset <= buffer.numel() - held.numel()
    return FlatShard(name, shape, start, length, offset), held[:length] if inside else None


def _offset(view: Tensor, buffer: Tensor) -> int:
    """Offset of a view in its buffer; -1 if it is no view of it."""
    distance = view.data_ptr() - buffer.data_ptr()
    same = view.dtype == buffer.dtype and view.device == buffer.device and distance % buffer.element_size() == 0
    return distance // buffer.element_size() if same else -1


def _problems_of(shard: FlatShard, weights: Tensor | None, flat: Tensor) -> list[str]:
    """What is wrong with one shard: it must lie in the partition and be the master copy of the model's weights."""
    if not shard.name:
        return ["a parameter that the model does not have"]
    if flat.dtype != torch.float32:
        return [f"master parameters are {flat.dtype}, not float32"]
    if weights is None or shard.flat_start < 0 or shard.flat_start + shard.length > flat.numel():
        return [f"{shard.name} does not lie in its flat buffer"]
    if not torch.equal(shard.of(flat.detach()).to(weights.dtype), weights):
        return [f"the master of {shard.name} is not the parameter"]
    return []


def _problems_between(shards: list[FlatShard], flat: Tensor) -> list[str]:
    """Shards of one rank must not overlap."""
    held = sorted((shard.flat_start, shard.flat_start + shard.length, shard.name) for shard in shards if shard.length)
    return [
        f"{name} and {next_name} overlap" for (_, end, name), (begin, _, next_name) in pairwise(held) if begin < end
    ]


def _agree(problems: list[str], partitions: list[Partition]) -> None:
    """Raise on all ranks if one found a problem, or if the shards of a parameter do not add up to it.

    The check sums, over ranks, the lengths and the element indices of each parameter's shards.
    """
    incomplete = []
    for partition in partitions:
        counts = [(shard.length, _sum_of_indices(shard.start, shard.length)) for shard in partition.shards]
        sums = torch.tensor([*counts, (len(problems), 0)], dtype=torch.int64, device=partition.flat.device)
        dist.all_reduce(sums, group=partition.process_group)
        *found, (all_problems, _) = sums.tolist()
        incomplete += [
            shard.name
            for shard, counted in zip(partition.shards, found, strict=True)
            if counted != [shard.numel, _sum_of_indices(0, shard.numel)]
        ]
        if all_problems:
            raise _unexpected("; ".join(problems) or "another process found a problem")
    if incomplete:
        raise _unexpected(f"the shards of {', '.join(incomplete)} do not make up the parameter")


def _sum_of_indices(start: int, length: int) -> int:
    return length * start + length * (length - 1) // 2


def _unexpected(what: str) -> UserError:
    import deepspeed

    return UserError(
        f"DeepSpeed {deepspeed.__version__} does not hold parameters as t0train knows it: {what}. t0train is tested "
        "with DeepSpeed 0.19.8; install that version, or use train.strategy=fsdp."
    )
