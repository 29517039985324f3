"""Rows before their tokens are read: every process plans all rows of a step and reads the tokens of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class LoaderState(NamedTuple):
    """Where in the sequence of rows the next one lies. All there is to save of the loader."""

    window: int = 0
    row: int = 0


@dataclass(frozen=True)
class PlannedRow:
    """A row: task and index of each of its examples, and how many of its slots they fill."""

    row_id: int
    tasks: NDArray[np.int32]
    examples: NDArray[np.int64]
    input_tokens: int
    target_tokens: int


@dataclass(frozen=True)
class RowPlan:
    """Consecutive rows of the loader, e.g. those of a step, with what a step needs to know of all of them.

    Attributes:
        rows: the rows.
        after: the state of the loader after them.
        max_inputs, max_targets: slots of a row.
    """

    rows: Sequence[PlannedRow]
    after: LoaderState
    max_inputs: int
    max_targets: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_ids(self) -> NDArray[np.int64]:
        """As in `RowBatch`."""
        return np.array([row.row_id for row in self.rows], np.int64)

    @property
    def example_rows(self) -> NDArray[np.int32]:
        """As in `RowBatch`."""
        return np.repeat(np.arange(len(self), dtype=np.int32), [len(row.tasks) for row in self.rows])

    @property
    def example_tasks(self) -> NDArray[np.int32]:
        """As in `RowBatch`."""
        return np.concatenate([row.tasks for row in self.rows])

    @property
    def example_ids(self) -> NDArray[np.int64]:
        """As in `RowBatch`."""
        return np.concatenate([row.examples for row in self.rows])

    @property
    def input_tokens(self) -> int:
        """Input tokens, trimmed to their rows."""
        return sum(row.input_tokens for row in self.rows)

    @property
    def target_tokens(self) -> int:
        """Target tokens, trimmed to their rows: what the loss is summed over."""
        return sum(row.target_tokens for row in self.rows)

    @property
    def target_slots(self) -> int:
        """Target slots, padding included."""
        return len(self) * self.max_targets

    @property
    def fill(self) -> tuple[float, float]:
        """Share of the input slots, and of the target slots, that hold a token."""
        return self.input_tokens / (len(self) * self.max_inputs), self.target_tokens / self.target_slots

    def part(self, rank: int, size: int) -> RowPlan:
        """The rows of one of `size` processes: consecutive ones, as many as the others have or one fewer."""
        first, last = (len(self) * index // size for index in (rank, rank + 1))
        return replace(self, rows=self.rows[first:last])
