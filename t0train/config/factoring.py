"""Which second moments Adafactor factors; kept out of `t0train.optim` so that `estimate` need not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Which second moments are factored: the only difference between implementations of Adafactor that matters here."""

    min_dim_size_to_factor: int
    last_two: bool


PRESETS = {
    # mesh_tensorflow/optimize.py: the two longest dimensions, if both reach 128 (so not the relative bias tables)
    "t5": Preset(min_dim_size_to_factor=128, last_two=False),
    # transformers/optimization.py: every tensor of two or more dimensions, over the last two
    "hf": Preset(min_dim_size_to_factor=1, last_two=True),
}


def factored_axes(shape: Sequence[int], min_dim_size: int, last_two: bool) -> tuple[int, int] | None:
    """The two axes (row, column) over which a second moment is factored, or None if it is stored in full.

    Args:
        shape: shape of the parameter.
        min_dim_size: both axes must be at least this long.
        last_two: take the last two axes (transformers); otherwise the two longest (Mesh TensorFlow, optax).

    Returns:
        The axis that indexes the row factor, then the one that indexes the column factor.
    """
    if len(shape) < 2:
        return None
    ranked = range(len(shape)) if last_two else sorted(range(len(shape)), key=lambda axis: shape[axis])
    row, column = ranked[-2], ranked[-1]
    return (row, column) if min(shape[row], shape[column]) >= min_dim_size else None
