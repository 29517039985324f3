"""DeepSpeed's own configuration: generated from the run's, with the run's own DeepSpeed keys checked and merged in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t0train.config import RunConfig
from t0train.core.errors import UserError

# DeepSpeed's keys for what the run's configuration decides, and where it does
_DECIDED = {
    "train_batch_size": "train.batch.rows",
    "train_micro_batch_size_per_gpu": "train.batch.micro_rows",
    "gradient_accumulation_steps": "train.batch.rows and train.batch.micro_rows",
    "gradient_clipping": "optimizer.max_grad_norm",
    "optimizer": "optimizer.name",
    "scheduler": "optimizer.schedule",
    "bf16": "train.precision",
    "fp16": "train.precision (T5's activations exceed fp16's range)",
    "bfloat16": "train.precision",
    "torch_autocast": "train.precision",
    "data_types": "train.precision",
    "seed": "seed",
    "zero_optimization.stage": "train.deepspeed.stage",
    "zero_allow_untested_optimizer": "nothing: it is always true",
    "zero_force_ds_cpu_optimizer": "nothing: it is always false",
    "managed_gradient_accumulation": "nothing: it is always true",
    "prescale_gradients": "nothing: gradients are summed",
    "gradient_predivide_factor": "nothing: gradients are summed",
    "data_efficiency": "data and train.batch",
    "curriculum_learning": "data and train.batch",
    "checkpoint": "train.checkpoint",
}


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """What `deepspeed.initialize` is given: generated, with the run's `train.deepspeed.config` merged over it.

    Raises:
        UserError: a key that the run's configuration decides.
    """
    own = config.train.deepspeed.config
    if not isinstance(own.get("zero_optimization", {}), Mapping):
        raise UserError(
            "train.deepspeed.config: zero_optimization is a section of keys; see DeepSpeed's documentation."
        )
    for key, where in _DECIDED.items():
        section, _, inner = key.rpartition(".")
        if inner in (own.get(section, {}) if section else own):
            raise UserError(
                f"train.deepspeed.config sets {key}, which {where} decides; leave it out of DeepSpeed's keys."
            )
    generated: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # only counted by DeepSpeed; micro-batches are cut before it sees them
        "gradient_accumulation_steps": 1,  # so that it does not divide; it is told which micro-batch is the last
        "gradient_clipping": 0.0,  # absent, 0.19 clips at 1.0
        "bf16": {"enabled": config.train.precision == "bf16"},
        "zero_optimization": {"stage": config.train.deepspeed.stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if config.train.precision == "bf16":
        generated |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return _merged(generated, own)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged
