"""The rows of a run: windows of the order, packed. A pure function of (window, row), whoever asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from t0train.config.schema import DataConfig
from t0train.core.hashing import content_hash
from t0train.core.seeds import generator
from t0train.data.order import Order
from t0train.data.packing import WINDOW, pack
from t0train.data.row_plan import LoaderState, PlannedRow, RowPlan
from t0train.data.rows import RowBatch, build_rows
from t0train.data.store import TaskTokens
from t0train.data.vocabulary import Vocabulary
from t0train.mixture import Mixture

ROW_ID_SHIFT = 20  # row id = window << 20 | row; a window of 1,024 examples has at most 1,024 rows


@dataclass(frozen=True)
class RowStatistics:
    """What the rows of some windows hold.

    Attributes:
        rows: how many rows.
        input_lengths: tokens of every example's input before trimming, [examples].
        target_lengths: tokens of every example's target before trimming, EOS included, [examples].
        trimmed_inputs, trimmed_targets: share of the examples that are cut.
        fill_inputs, fill_targets: share of the rows' slots that hold a token.
    """

    rows: int
    input_lengths: NDArray[np.int64]
    target_lengths: NDArray[np.int64]
    trimmed_inputs: float
    trimmed_targets: float
    fill_inputs: float
    fill_targets: float

    def summary(self) -> dict[str, float]:
        """The means, for printing."""
        return {
            "examples": len(self.input_lengths),
            "examples_per_row": len(self.input_lengths) / self.rows,
            "mean_input_tokens": float(self.input_lengths.mean()),
            "mean_target_tokens": float(self.target_lengths.mean()),
            "trimmed_inputs": self.trimmed_inputs,
            "trimmed_targets": self.trimmed_targets,
            "fill_inputs": self.fill_inputs,
            "fill_targets": self.fill_targets,
        }


class PackedLoader:
    """The endless sequence of packed rows of a run.

    Rows follow one another window by window; window w holds positions [1024 w, 1024 (w + 1)) of the order. Nothing is
    remembered between calls but recently planned windows, so any process can ask for any row.

    Attributes:
        mixture: the tasks and their probabilities.
        vocabulary: the vocabulary of the ids.
        task_names: names by the index that `RowBatch.example_tasks` holds.
        task_sizes: examples of each task.
    """

    def __init__(
        self, mixture: Mixture, tokens: Sequence[TaskTokens], vocabulary: Vocabulary, data: DataConfig, seed: int
    ) -> None:
        self.mixture = mixture
        self.vocabulary = vocabulary
        self.task_names = [task.name for task in mixture.tasks]
        self.task_sizes = [task.num_rows for task in tokens]
        self._tokens = tokens
        self._data = data
        self._key = (seed, mixture.hash)
        self._order = Order(mixture.probabilities, self.task_sizes, seed, mixture.hash)
        self._window = lru_cache(maxsize=16)(self._plan_window)

    @property
    def fingerprint(self) -> str:
        """Content hash of what decides the tokens: source revision, split, template and vocabulary of every task."""
        return content_hash([task.manifest["key_parts"] for task in self._tokens])

    def take(
        self, state: LoaderState, rows: int | None = None, examples: int | None = None
    ) -> tuple[RowBatch, LoaderState]:
        """The rows from `state` on, and the state after them.

        Args:
            state: the first row.
            rows: how many rows.
            examples: instead of rows: as many whole rows as first hold this many examples.
        """
        plan = self.plan(state, rows, examples)
        return self.read(plan), plan.after

    def skip(self, state: LoaderState, rows: int | None = None, examples: int | None = None) -> LoaderState:
        """The state that `take` would return; plans the rows but reads no tokens."""
        return self.plan(state, rows, examples).after

    def batches(
        self,
        state: LoaderState,
        rows: int | None = None,
        examples: int | None = None,
        workers: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Generator[tuple[RowBatch, RowPlan], None, None]:
        """Endless `take`s, one after the other, built ahead by threads; the result does not depend on their number.

        Close the iterator (or let it go) to stop the threads.

        Args:
            state: as for `take`.
            rows: as for `take`.
            examples: as for `take`.
            workers: threads; 0 builds in the caller's.
            part: (rank, size): read only the rows of this process. The plan is always that of all rows. A process
                that no row is left for gets the first one without its targets.
        """
        if workers == 0:
            while True:
                plan = self.plan(state, rows, examples)
                yield self._read_part(plan, part), plan
                state = plan.after
        pool = ThreadPoolExecutor(workers, thread_name_prefix="rows")
        ahead: deque[tuple[Future[RowBatch], RowPlan]] = deque()
        try:
            while True:
                while len(ahead) <= workers:
                    plan = self.plan(state, rows, examples)
                    ahead.append((pool.submit(self._read_part, plan, part), plan))
                    state = plan.after
                future, plan = ahead.popleft()
                yield future.result(), plan
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def statistics(self, windows: int = 16) -> RowStatistics:
        """Lengths and fill of the first windows; plans rows but reads no tokens."""
        max_inputs, max_targets = self._data.max_inputs, self._data.max_targets
        rows = sum(len(self._window(window)) for window in range(windows))
        inputs, targets = self._lengths(*self._order.at(np.arange(windows * WINDOW)))
        return RowStatistics(
            rows=rows,
            input_lengths=inputs,
            target_lengths=targets,
            trimmed_inputs=float(np.mean(inputs > max_inputs)),
            trimmed_targets=float(np.mean(targets > max_targets)),
            fill_inputs=float(np.minimum(inputs, max_inputs).sum() / (rows * max_inputs)),
            fill_targets=float(np.minimum(targets, max_targets).sum() / (rows * max_targets)),
        )

    def plan(self, state: LoaderState, rows: int | None = None, examples: int | None = None) -> RowPlan:
        """What `take` would read, without its tokens."""
        if (rows is None) == (examples is None):
            raise ValueError("give either rows or examples")
        window, row = state
        planned: list[PlannedRow] = []
        held = 0
        while (len(planned) < rows) if rows is not None else (held < (examples or 0)):
            here = self._window(window)
            if row == len(here):
                window, row = window + 1, 0
                continue
            planned.append(here[row])
            held += len(here[row].tasks)
            row += 1
        return RowPlan(planned, LoaderState(window, row), self._data.max_inputs, self._data.max_targets)

    def _plan_window(self, window: int) -> list[PlannedRow]:
        tasks, examples = self._order.at(np.arange(window * WINDOW, (window + 1) * WINDOW))
        input_lengths, target_lengths = self._lengths(tasks, examples)
        data = self._data
        packed = pack(input_lengths, target_lengths, data.max_inputs, data.max_targets, data.packing)
        if data.packing == "best_fit":  # it makes the fullest rows of the longest examples first
            shuffled = generator(*self._key, "window", window).permutation(len(packed))
            packed = [packed[i] for i in shuffled]
        inputs, targets = np.minimum(input_lengths, data.max_inputs), np.minimum(target_lengths, data.max_targets)
        return [
            PlannedRow(
                window << ROW_ID_SHIFT | row,
                tasks[members],
                examples[members],
                int(inputs[members].sum()),
                int(targets[members].sum()),
            )
            for row, members in enumerate(packed)
        ]

    def _lengths(
        self, tasks: NDArray[np.int32], examples: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Untrimmed input and target lengths of some examples, read task by task."""
        inputs, targets = np.empty_like(examples), np.empty_like(examples)
        by_task = np.argsort(tasks, kind="stable")
        present, firsts = np.unique(tasks[by_task], return_index=True)
        for task, here in zip(present.tolist(), np.split(by_task, firsts[1:]), strict=True):
            inputs[here], targets[here] = self._tokens[task].lengths(examples[here])
        return inputs, targets

    def read(self, plan: RowPlan) -> RowBatch:
        """The planned rows with their tokens."""
        rows = [
            [
                (self._tokens[task].inputs(example), (self._tokens[task].targets(example),))
                for task, example in zip(row.tasks.tolist(), row.examples.tolist(), strict=True)
            ]
            for row in plan.rows
        ]
        return build_rows(
            rows,
            self._data.max_inputs,
            self._data.max_targets,
            row_ids=plan.row_ids,
            example_tasks=plan.example_tasks,
            example_ids=plan.example_ids,
        )

    def _read_part(self, plan: RowPlan, part: tuple[int, int]) -> RowBatch:
        own = plan.part(*part)
        if len(own):
            return self.read(own)
        first = plan.part(0, len(plan))
        return self.read(first).without_targets()
