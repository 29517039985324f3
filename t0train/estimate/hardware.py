"""What an estimate knows without asking the network: GPUs, and the architecture of the model a run starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from t0train.config.architecture import SIZES, T5Config, read_architecture
from t0train.config.schema import ModelConfig
from t0train.core.errors import UserError, nearest
from t0train.core.run_folder import RunFolder, list_checkpoints


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        name: as on the command line.
        bf16_flop_per_s: dense bf16 peak that utilisation is stated against.
        fp32_flop_per_s: fp32 peak outside the tensor cores, which torch uses for fp32 by default.
        memory_bytes: what a run may fill. A data sheet's "80 GB" are about 80 GiB, so taking them as 80e9 bytes leaves
            7 % for the CUDA context, NCCL's buffers and fragmentation.
    """

    name: str
    bf16_flop_per_s: float
    fp32_flop_per_s: float
    memory_bytes: float

    def peak_flop_per_s(self, precision: str) -> float:
        """The peak for `train.precision`."""
        return self.bf16_flop_per_s if precision == "bf16" else self.fp32_flop_per_s


# NVIDIA's data sheets, dense. Hopper's bf16 is no data sheet's 989: large matrix products reach 790 of them, and
# utilisation is stated against that here. H100 is the SXM module, whose chip and power are H200's.
DEVICES = {
    device.name: device
    for device in (
        Device("h200", 790e12, 67e12, 141e9),
        Device("h100", 790e12, 67e12, 80e9),
        Device("a100-80", 312e12, 19.5e12, 80e9),
        Device("a100-40", 312e12, 19.5e12, 40e9),
        Device("l40s", 362e12, 91.6e12, 48e9),
    )
}


def find_device(name: str) -> Device:
    """The GPU of that name.

    Raises:
        UserError: an unknown one, with the nearest known names.
    """
    if name.lower() not in DEVICES:
        raise UserError(f"there is no device {name!r} to estimate for; {nearest(name.lower(), DEVICES)}")
    return DEVICES[name.lower()]


_PUBLISHED = ("small", "base", "large", "xl", "xxl")
# Hub ids of T5 1.1, its LM-adapted form, and T0 (from LM-adapted XXL, and XL for T0_3B)
HUB_SIZES = {
    **{f"google/t5-v1_1-{size}": size for size in _PUBLISHED},
    **{f"google/t5-{size}-lm-adapt": size for size in _PUBLISHED},
    **{f"bigscience/{name}": "xxl" for name in ("T0", "T0p", "T0pp", "T0_single_prompt", "T0_original_task_only")},
    "bigscience/T0_3B": "xl",
}


def find_architecture(model: ModelConfig) -> T5Config:
    """The architecture of `model.init_from`: random weights of a size, a folder, a run folder, or a hub id known here.

    Raises:
        UserError: an unknown hub id, or a folder without a model.
    """
    if model.init_from == "random":
        return replace(SIZES[model.size], vocab_size=model.vocabulary_size)
    folder = Path(model.init_from)
    if folder.is_dir():
        checkpoints = list_checkpoints(RunFolder(folder).checkpoints)
        read = read_architecture(checkpoints[0] if checkpoints else folder)
        # the flag is unreliable, but the head of a T5 1.1 is always untied
        return replace(read, tie_word_embeddings=read.tie_word_embeddings and not read.is_gated)
    if model.init_from not in HUB_SIZES:
        raise UserError(
            f"the size of {model.init_from!r} is not known here, and the estimate does not ask the hub: "
            f"give the folder of a downloaded model, or one of the same size as model.init_from; "
            f"{nearest(model.init_from, HUB_SIZES)}"
        )
    return SIZES[HUB_SIZES[model.init_from]]
