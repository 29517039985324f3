"""Shards of parameters in the flat partitions of DeepSpeed's ZeRO, and Adafactor's update of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from t0train.config.resolve import factored_axes
from t0train.core.errors import UserError
from t0train.optim.adafactor import ParameterUpdate, Slots


@dataclass(frozen=True)
class FlatShard:
    """The elements of one parameter that a rank holds: a contiguous range in row-major order, perhaps empty.

    Attributes:
        name: of the parameter.
        shape: of the whole parameter.
        start: first element of the range.
        length: elements in the range.
        flat_start: offset of the range in the rank's flat partition.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    length: int
    flat_start: int

    @property
    def numel(self) -> int:
        """Elements of the whole parameter."""
        return math.prod(self.shape)

    def of(self, flat: Tensor) -> Tensor:
        """The range as a view of a flat partition."""
        return flat.narrow(0, self.flat_start, self.length)


@dataclass(frozen=True, eq=False)
class Partition:
    """A flat fp32 partition, which DeepSpeed hands to the optimizer in place of parameters.

    Attributes:
        flat: this rank's tensor.
        shards: what it holds of each parameter of its group: the same names in the same order on all ranks.
        process_group: the ranks that hold the other shards.
        group: index of the optimizer's parameter group.
    """

    flat: Tensor
    shards: tuple[FlatShard, ...]
    process_group: dist.ProcessGroup
    group: int


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of a matrix whose elements are contiguous in a shard."""

    row: int
    rows: int
    column: int
    columns: int
    offset: int

    def of(self, elements: Tensor) -> Tensor:
        """The rectangle `[rows, columns]` as a view of the shard's elements."""
        return elements.narrow(0, self.offset, self.rows * self.columns).view(self.rows, self.columns)


def rectangles(start: int, length: int, width: int) -> Iterator[Rectangle]:
    """Split a range of a matrix of `width` columns into the rest of a first row, whole rows and part of a last row."""
    position, end = start, start + length
    while position < end:
        row, column = divmod(position, width)
        whole_rows = 0 if column else (end - position) // width
        rows, columns = (whole_rows, width) if whole_rows else (1, min(width - column, end - position))
        yield Rectangle(row, rows, column, columns, position - start)
        position += rows * columns


def initial_slots(shard: FlatShard, flat: Tensor, options: Mapping[str, Any]) -> Slots:
    """The state of a parameter before its first step: factors of full shape, or this rank's shard of the full moment.

    Raises:
        UserError: the parameter would be factored but is no matrix.
    """
    axes = factored_axes(shard.shape, options["min_dim_size_to_factor"], options["last_two"])
    step = torch.zeros((), dtype=torch.int64)
    if axes is None:
        return {"step": step, "moment": torch.zeros_like(shard.of(flat.detach()))}
    if len(shard.shape) != 2:
        raise UserError(
            f"{shard.name} has the shape {shard.shape}: under ZeRO, Adafactor factors matrices only; use "
            "train.strategy=fsdp, or a larger optimizer.min_dim_size_to_factor."
        )
    by_axis = (flat.new_zeros(shard.shape[0], 1), flat.new_zeros(1, shard.shape[1]))
    return {"step": step, "row": by_axis[axes[0]], "column": by_axis[axes[1]]}


class FlatShardUpdate(ParameterUpdate):
    """One step of a flat shard. Factors are whole and the same on every rank, a full moment is sharded."""

    row_partial = column_partial = True
    in_place = True

    def __init__(self, shard: FlatShard, flat: Tensor, state: Slots, options: Mapping[str, Any]) -> None:
        assert flat.grad is not None
        super().__init__(shard.of(flat.detach()), shard.of(flat.grad), shard.shape, state, options)
        self.rectangles = list(rectangles(shard.start, shard.length, shard.shape[1])) if self.axes else []

    def mean_squares(self, axes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """This shard's terms of the mean squared gradients."""
        rows, columns = self.shape
        squares = self.update.square()
        by_row, by_column = squares.new_zeros(rows, 1), squares.new_zeros(1, columns)
        for rectangle in self.rectangles:
            block = rectangle.of(squares)
            by_row[rectangle.row : rectangle.row + rectangle.rows] += block.sum(1, keepdim=True)
            by_column[:, rectangle.column : rectangle.column + rectangle.columns] += block.sum(0, keepdim=True)
        by_row.div_(columns)
        by_column.div_(rows)
        return (by_row, by_column) if axes[0] == 0 else (by_column, by_row)

    def multiply(self, first: Tensor, *others: Tensor) -> None:
        """Multiply the shard of the gradient by factors of the whole parameter, or by the root of its own moment."""
        if self.axes is None:
            return super().multiply(first)
        by_row, by_column = (first, *others) if self.axes[0] == 0 else (*others, first)
        for rectangle in self.rectangles:
            block = rectangle.of(self.update)
            block.mul_(by_row[rectangle.row : rectangle.row + rectangle.rows])
            block.mul_(by_column[:, rectangle.column : rectangle.column + rectangle.columns])
