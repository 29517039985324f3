"""What the checks of a GPU have in common: where they run, and what they find."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from synthetic import random_rows

from t0train.config.architecture import SIZES
from t0train.data import RowBatch

EXACT = 1e-4  # largest relative distance in fp32


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        check: what was checked.
        arm: backend and precision, or the like.
        value: what was found, in words.
        ok: None where there is nothing to pass.
        number: what was found.
    """

    check: str
    arm: str
    value: str
    ok: bool | None = None
    number: float | None = None


@dataclass(frozen=True)
class Setting:
    """Where and on what the checks run.

    Attributes:
        device: the GPU, or the CPU for a dry run.
        size: model of the equality checks.
        speed_size: model of the memory and speed checks.
        rows: packed rows of a batch.
        max_inputs: positions of a row's input side.
        max_targets: of its target side.
        steps: that are timed.
    """

    device: torch.device
    size: str
    speed_size: str
    rows: int
    max_inputs: int
    max_targets: int
    steps: int

    @property
    def is_gpu(self) -> bool:
        """Whether this is no dry run."""
        return self.device.type == "cuda"

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that can be trained here, but for `eager`."""
        return ("sdpa", "flex") if self.is_gpu else ("sdpa", "segment")

    def batch(self) -> RowBatch:
        """Packed rows."""
        return random_rows(self.rows, self.max_inputs, self.max_targets, SIZES[self.size].vocab_size)
