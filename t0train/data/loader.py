"""The rows of a run: windows of the order, packed. A pure function of (window, row), whoever asks.

`open_loader` opens them from the token store that `prepare` wrote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t0train.config import RunConfig
from t0train.config.schema import DataConfig
from t0train.core.errors import UserError
from t0train.core.hashing import content_hash, generator
from t0train.data.counts import refuse_faults, remarks
from t0train.data.order import LoaderState, Order, PlannedRow, RowPlan
from t0train.data.packing import WINDOW, pack
from t0train.data.prepare import wait_for_preparation
from t0train.data.rows import RowBatch, build_rows
from t0train.data.store import StoreKey, TaskTokens, missing_reason, open_folder, store_folder
from t0train.data.vocabulary import Vocabulary, load_vocabulary
from t0train.mixture import Mixture, build_mixture, check_sources
from t0train.tasks import Task, open_table, parse_split, training_split

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


def open_loader(config: RunConfig, verify: bool = True) -> PackedLoader:
    """The rows of a run, from its token store.

    Args:
        config: the run.
        verify: compare the checksum of every file of the store once.

    Raises:
        UserError: tasks that are not prepared or damaged (all of them are listed), that have no example, or whose
            targets teach nothing (`data.allow_empty_targets`).
    """
    mixture = build_mixture(config.mixture, config.data)
    mixture = check_sources(mixture, config.data).require()
    vocabulary = load_vocabulary(config.data.vocabulary)
    store = store_folder(config.data.store)
    tokens, problems = _open_tasks(mixture, config, vocabulary, store, verify)
    if problems and wait_for_preparation(store):
        tokens, problems = _open_tasks(mixture, config, vocabulary, store, verify)
    if problems:
        shown = "\n  ".join(problems[:8]) + (f"\n  and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise UserError(f"{len(problems)} of {len(mixture.tasks)} tasks of the mixture cannot be drawn:\n  {shown}")
    counts = {task.name: opened.counts for task, opened in zip(mixture.tasks, tokens, strict=True)}
    if not config.data.allow_empty_targets:
        refuse_faults(counts)
    mixture = replace(mixture, remarks=(*mixture.remarks, *remarks(counts)))
    return PackedLoader(mixture, tokens, vocabulary, config.data, config.seed)


def _open_tasks(
    mixture: Mixture, config: RunConfig, vocabulary: Vocabulary, store: Path, verify: bool
) -> tuple[list[TaskTokens], list[str]]:
    """The tokens of the tasks that can be drawn, and what is wrong with the others."""
    tokens: list[TaskTokens] = []
    problems: list[str] = []
    for task in mixture.tasks:
        split = training_split(task.dataset, config.data.splits)
        try:
            opened = open_task_tokens(store, task, split, vocabulary, config.data.source, config.seed, verify)
        except UserError as error:
            problems.append(str(error))
            continue
        if opened.num_rows == 0:
            problems.append(
                f"task {task.name} has no example: its template drops every row of split {split}; "
                f"leave it out with mixture.exclude=[{task.name}]."
            )
        tokens.append(opened)
    return tokens, problems


def open_task_tokens(
    store: Path,
    task: Task,
    split: str,
    vocabulary: Vocabulary,
    source: str,
    seed: int = 0,
    verify: bool = True,
) -> TaskTokens:
    """The prepared examples of a task's split.

    Args:
        store: folder of the token store.
        task: which task.
        split: which split, as it was prepared.
        vocabulary: which vocabulary.
        source: `hub` or the folder with the rows that the examples were made from.
        seed: the seed they were prepared with.
        verify: compare the file's checksum.

    Raises:
        UserError: not prepared, prepared from something else, or damaged.
    """
    key = StoreKey.of(task, parse_split(split), open_table(task.dataset, split, source), vocabulary, seed)
    folder = store / key.folder
    if not folder.is_dir():
        raise UserError(
            f"task {task.name}, split {split}: {missing_reason(store, key)} in {store}; "
            "run `t0train data prepare` with this configuration."
        )
    return open_folder(folder, verify)
