"""DeepSpeed's own configuration: generated from the run's, with the run's own DeepSpeed keys checked and merged in.

DeepSpeed silently ignores unknown keys, and accepts keys that contradict the run or make its update inexact. Only keys
that are known to be safe are accepted here.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from t0train.config import RunConfig
from t0train.core.errors import UserError, nearest

_WHERE = "train.deepspeed.config"
_ZERO = "zero_optimization"
_SWITCHES = ("dump_state", "memory_breakdown", "wall_clock_breakdown")
_ALLOWED = (_ZERO, "comms_logger", "steps_per_print", *_SWITCHES)

_DECIDED = {  # DeepSpeed's keys for what the run's configuration decides, and where it does
    "train_batch_size": "train.batch.rows",
    "train_micro_batch_size_per_gpu": "train.batch.micro_batch_rows",
    "gradient_accumulation_steps": "train.batch.rows and train.batch.micro_batch_rows",
    "gradient_clipping": "optimizer.max_grad_norm",
    "optimizer": "optimizer.name",
    "scheduler": "optimizer.schedule",
    "bf16": "train.precision",
    "fp16": "train.precision (T5's activations exceed fp16's range)",
    "bfloat16": "train.precision",
    "amp": "train.precision",
    "torch_autocast": "train.precision",
    "data_types": "train.precision (gradients are summed in fp32)",
    "communication_data_type": "train.precision (gradients are summed in fp32)",
    "seed": "seed",
    "activation_checkpointing": "train.activation_checkpointing",
    "compile": "train.compile",
    "zero_allow_untested_optimizer": "nothing: it is always true",
    "zero_force_ds_cpu_optimizer": "nothing: it is always false",
    "managed_gradient_accumulation": "nothing: it is always true",
    "prescale_gradients": "nothing: gradients are summed",
    "gradient_predivide_factor": "nothing: gradients are summed",
    "gradient_allreduce_op": "nothing: gradients are summed",
    "data_efficiency": "data and train.batch",
    "curriculum_learning": "data and train.batch",
    "checkpoint": "train.checkpoint",
    f"{_ZERO}.stage": "train.deepspeed.stage",
}
_OFFLOAD = "the optimizer's update is not known to be exact where its state is moved to the CPU or to a disk"
_QUANTISED = "it rounds what processes send each other (ZeRO++), so that the update is not exact"
_REFUSED = {
    "elasticity": "a run keeps its batch; it may be continued with another number of processes without this",
    "progressive_layer_drop": "it leaves layers out, which is another recipe",
    "compression_training": "it changes the weights, which is another recipe",
    "quantize_training": "it changes the weights, which is another recipe",
    **{
        f"{_ZERO}.{key}": _OFFLOAD for key in ("offload_optimizer", "offload_param", "cpu_offload", "cpu_offload_param")
    },
    f"{_ZERO}.cpu_offload_use_pin_memory": _OFFLOAD,
    f"{_ZERO}.zenflow": _OFFLOAD,
    f"{_ZERO}.zero_quantized_weights": _QUANTISED,
    f"{_ZERO}.zero_quantized_nontrainable_weights": _QUANTISED,
    f"{_ZERO}.zero_quantized_gradients": _QUANTISED,
    f"{_ZERO}.zero_hpz_partition_size": "t0train does not know where parameters lie with it",
    f"{_ZERO}.legacy_stage1": "t0train does not know where parameters lie with it",
    f"{_ZERO}.elastic_checkpoint": "checkpoints are t0train's, which fit any number of processes",
    f"{_ZERO}.compute_grad_norm": "the run needs the norm of its gradients, to log it and to clip by it",
}


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
    # On a CPU it would compile a shared-memory helper for inference at the first start; that takes minutes, and a start
    # that is killed meanwhile leaves a lock on which every later one hangs.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    module: ModuleType = deepspeed
    return module


def deepspeed_for(device: torch.device) -> ModuleType:
    """DeepSpeed, imported with this process's device in its environment, from which it reads it.

    Raises:
        UserError: it is not installed.
    """
    os.environ["LOCAL_RANK"] = str(device.index or 0)  # its only way to know the GPU; srun does not set it
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # it would take a GPU that is there
    deepspeed = import_deepspeed()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of optimizers that it does not know
    # it calls what torch has renamed, thousands of times
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    return deepspeed


def deepspeed_config(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """What `deepspeed.initialize` is given: generated, with the run's `train.deepspeed.config` merged over it.

    Args:
        config: the run.
        device: what this process computes on.

    Raises:
        UserError: a key or value that DeepSpeed does not know, or that contradicts the run; DeepSpeed is not installed.
    """
    own = config.train.deepspeed.config
    _refuse_by_name(own)
    _check_plain_values(own)
    deepspeed_for(device)
    _check_sections(own, config.train.deepspeed.stage)
    generated: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # only counted by DeepSpeed; micro-batches are cut before it sees them
        "gradient_accumulation_steps": 1,  # so that it does not divide; the engine marks the last micro-batch
        "gradient_clipping": 0.0,  # absent, 0.19 clips at 1.0
        "bf16": {"enabled": config.train.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if config.train.precision == "bf16":
        generated |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return generated | own | {_ZERO: {"stage": config.train.deepspeed.stage, **own.get(_ZERO, {})}}


def _refuse_by_name(own: Mapping[str, Any]) -> None:
    """Refuse keys that the run decides, that make it inexact, or that are not known at the top."""
    for key in (*own, *(f"{_ZERO}.{inner}" for inner in _section(_ZERO, own))):
        if key in _DECIDED:
            raise UserError(f"{_WHERE} sets {key}, which {_DECIDED[key]} decides; leave it out of DeepSpeed's keys.")
        if key in _REFUSED:
            raise UserError(f"{_WHERE} sets {key}: {_REFUSED[key]}. Leave it out, or use train.strategy=fsdp.")
    for key in own:
        if key not in _ALLOWED:
            raise UserError(f"{_WHERE} sets {key}, which no run may set there; {nearest(key, _ALLOWED)}")


def _section(name: str, own: Mapping[str, Any]) -> Mapping[str, Any]:
    section = own.get(name, {})
    if not isinstance(section, Mapping):
        raise UserError(f"{_WHERE}: {name} is {section!r}, but a section of keys is expected; see DeepSpeed's docs.")
    return section


def _check_plain_values(own: Mapping[str, Any]) -> None:
    for key in _SWITCHES:
        if not isinstance(own.get(key, False), bool):
            raise UserError(f"{_WHERE}: {key} is {own[key]!r}, but true or false is expected.")
    steps = own.get("steps_per_print", 1)
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"{_WHERE}: steps_per_print is {steps!r}, but a number of steps is expected.")


def _check_sections(own: Mapping[str, Any], stage: int) -> None:
    """Refuse what DeepSpeed's own schemas do not know or do not take."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    _check_section(_ZERO, _section(_ZERO, own), DeepSpeedZeroConfig, stage=stage)
    _check_section("comms_logger", _section("comms_logger", own), CommsLoggerConfig)


def _check_section(name: str, section: Mapping[str, Any], model: type[BaseModel], **decided: int) -> None:
    known = {field.alias or key for key, field in model.model_fields.items()}
    known -= {key.removeprefix(f"{name}.") for key in (*_DECIDED, *_REFUSED)}
    for key in section:
        if key not in known:
            raise UserError(f"{_WHERE}: {name} has no key {key}; {nearest(str(key), known)}")
    try:
        model(**section, **decided)
    except ValidationError as error:
        problems = [
            f"{'.'.join([name, *map(str, one['loc'])])}: found {one['input']!r}. {one['msg']}."
            for one in error.errors()
        ]
        raise UserError(f"{_WHERE}: {' '.join(problems)}") from error
    except (TypeError, AssertionError) as error:  # of DeepSpeed's own checks
        raise UserError(f"{_WHERE}: {name} is refused by DeepSpeed: {error}.") from error
