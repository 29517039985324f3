"""The architecture of the model that a run starts from, without asking the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from t0train.config.architecture import SIZES, T5Config, read_architecture
from t0train.config.schema import ModelConfig
from t0train.core.errors import UserError, nearest
from t0train.core.run_folder import RunFolder, list_checkpoints

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
