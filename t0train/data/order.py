"""The order of training: position -> (task, row) as a pure function. No state, no ranks, no workers, no replay.

Tasks are drawn independently by rate, as seqio's mixtures draw them. To know how often a task was drawn before a
position without replaying the draws, counts are drawn first, from the top down: an era of 1,024 blocks gets its
counts per task (multinomial), each half of it gets its part of them (multivariate hypergeometric), and so on down to
a block of 65,536 positions, whose draws are then arranged at random. That is the same distribution as drawing every
position by itself, and reaches any block in ten halvings. Within a task, every epoch is a permutation computed element
by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from t0train.core.hashing import derive_seed, generator, mix64

BLOCK = 65_536
_HALVINGS = 10  # blocks of an era: 2**10; its 67 M positions stay below the 10**9 of NumPy's hypergeometric draws
_ROUNDS = 8  # with fewer, the orders of very small tasks are visibly uneven
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Order:
    """An endless sequence of draws from tasks.

    Args:
        probabilities: of each task, [tasks]; they are normalised.
        sizes: rows of each task, [tasks]; at least 1 wherever the probability is above 0.
        seed: seed of the run.
        key: identity of the mixture. Another key gives another order.
    """

    def __init__(
        self,
        probabilities: Sequence[float] | NDArray[np.floating],
        sizes: Sequence[int] | NDArray[np.integer],
        seed: int,
        key: str,
    ) -> None:
        shares = np.asarray(probabilities, np.float64) / np.sum(probabilities)
        # Whole numbers, so that the last bit of a sum, which depends on the processor, cannot change a draw.
        weights = np.rint(shares * 2.0**40)
        self.probabilities = weights / weights.sum()
        self.sizes = np.asarray(sizes, np.int64)
        if np.any(self.sizes[self.probabilities > 0] < 1):
            raise ValueError("a task without rows has a probability above 0")
        self._key = (seed, key)
        tasks = range(len(self.sizes))
        self._task_keys = np.array([derive_seed(seed, key, "rows", task) for task in tasks], np.uint64)
        self._block = lru_cache(maxsize=4)(self._draw_block)

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The task index and the row within the task at each position, [positions] each."""
        positions = np.asarray(positions, np.int64)
        tasks, rows = np.empty(positions.shape, np.int32), np.empty(positions.shape, np.int64)
        blocks, offsets = np.divmod(positions, BLOCK)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            block_tasks, block_rows = self._block(block)
            tasks[here] = block_tasks[offsets[here]]
            rows[here] = block_rows[offsets[here]]
        return tasks, rows

    def counts(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How often each task is drawn before block `block`, and inside it, [tasks] each."""
        era, index = divmod(block, 1 << _HALVINGS)
        before = sum((self._era(earlier) for earlier in range(era)), np.zeros_like(self.sizes))
        counts = self._era(era)
        for level in range(1, _HALVINGS + 1):
            draws = generator(*self._key, "half", era, level, index >> (_HALVINGS - level + 1))
            left = draws.multivariate_hypergeometric(counts, BLOCK << (_HALVINGS - level))
            if index >> (_HALVINGS - level) & 1:
                before, counts = before + left, counts - left
            else:
                counts = left
        return before, counts

    def _era(self, era: int) -> NDArray[np.int64]:
        return generator(*self._key, "era", era).multinomial(BLOCK << _HALVINGS, self.probabilities)

    def _draw_block(self, block: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        before, counts = self.counts(block)
        arrange = generator(*self._key, "block", block)
        tasks = arrange.permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
        by_task = np.argsort(tasks, kind="stable")
        draws = np.empty(BLOCK, np.int64)  # how often the task was drawn before each position
        draws[by_task] = np.arange(BLOCK) + np.repeat(before - (np.cumsum(counts) - counts), counts)
        epochs, indices = np.divmod(draws, self.sizes[tasks])
        keys = mix64(self._task_keys[tasks] + epochs.astype(np.uint64) * _GOLDEN)
        return tasks, permute(indices, self.sizes[tasks], keys)


def permute(indices: NDArray[np.int64], sizes: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where a keyed permutation of 0..size-1 sends each index; element by element, with any mix of sizes and keys.

    A generalised Feistel network on Z_a x Z_b with a*b just above the size, walked along its cycle until the value is
    below the size (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """
    values = np.array(indices, np.uint64)
    todo = np.arange(len(values))
    while len(todo):
        size = sizes[todo].astype(np.uint64)
        a = np.ceil(np.sqrt(size)).astype(np.uint64)
        b = (size + a - np.uint64(1)) // a
        right, left = np.divmod(values[todo], a)
        key = keys[todo]
        for _ in range(_ROUNDS):
            key = mix64(key + _GOLDEN)
            left = (left + mix64(key ^ right) % a) % a
            right = (right + mix64(key + left) % b) % b
        values[todo] = right * a + left
        todo = todo[values[todo] >= size]
    return values.astype(np.int64)


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
