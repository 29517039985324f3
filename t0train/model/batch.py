"""A row batch as tensors on the model's device."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from t0train.data import RowBatch


@dataclass(frozen=True)
class Batch:
    """Packed rows. Segments count from 1 in each row and are contiguous; 0 is padding.

    Attributes:
        input_ids: [rows, inputs].
        input_segments: [rows, inputs].
        decoder_input_ids: [rows, targets]; id 0 at the first position of every segment.
        labels: [rows, targets]; 0 on padding.
        target_segments: [rows, targets].
        target_sources: [rows, targets]; the input segment that a target reads.
        row_ids: [rows]; identity of a row in the whole run, the key of its dropout masks.
        seed: key of the dropout masks of this step.
        real: [targets] indices of the targets in the flattened labels, computed on the CPU: on a GPU their number would
            have to be copied back, and the next micro-batch would wait for it.
    """

    input_ids: Tensor
    input_segments: Tensor
    decoder_input_ids: Tensor
    labels: Tensor
    target_segments: Tensor
    target_sources: Tensor
    row_ids: Tensor
    seed: int = 0
    real: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "real", self.labels.flatten().nonzero()[:, 0])

    @classmethod
    def from_rows(cls, rows: RowBatch, device: torch.device | str = "cpu", seed: int = 0) -> Batch:
        """Copy the loader's NumPy arrays to `device` as int64."""

        def tensor(name: str) -> Tensor:
            return torch.as_tensor(getattr(rows, name)).long()

        batch = cls(
            tensor("input_ids"),
            tensor("input_segments"),
            tensor("decoder_input_ids"),
            tensor("labels"),
            tensor("target_segments"),
            tensor("target_sources"),
            tensor("row_ids"),
            seed=seed,
        )
        return batch.to(device)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; a GPU copies while the CPU goes on."""
        is_gpu = torch.device(device).type == "cuda"
        moved = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                source = value.pin_memory() if is_gpu and not value.is_cuda else value
                object.__setattr__(moved, name, source.to(device, non_blocking=is_gpu))
        return moved
