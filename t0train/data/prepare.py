"""Making the token store: shards in local processes, finished ones kept across restarts, then put together by task."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.core.files import atomic_folder, make_folder, write_json
from t0train.core.hashing import file_sha256
from t0train.core.progress import progress
from t0train.data.shards import SHARD_ROWS, Shard, make_shard
from t0train.data.store import (
    MANIFEST,
    TOKENS,
    StoreKey,
    TaskTokens,
    missing_reason,
    open_folder,
    store_folder,
)
from t0train.data.vocabulary import Vocabulary, load_vocabulary
from t0train.mixture import build_mixture, check_sources
from t0train.tasks import Task, open_table, parse_split, training_split

_WORK = ".work"


@dataclass(frozen=True)
class Prepared:
    """A task's split in the store.

    Attributes:
        folder: where it is.
        rows: examples.
        source_rows: rows of the source split; those beyond `rows` were dropped by the template.
        made: False if it was there already.
    """

    task: str
    split: str
    folder: Path
    rows: int
    source_rows: int
    made: bool


def prepare(config: RunConfig, workers: int | None = None) -> list[Prepared]:
    """Put every task of a run's mixture into the token store; what is there already is left as it is.

    Args:
        config: the run.
        workers: processes; default: as many as cores.

    Raises:
        UserError: rows that are not at hand, a template naming a missing column, a folder that cannot be written.
    """
    mixture = build_mixture(config.mixture, config.data, config.seed)
    check_sources(mixture, config.data).require()
    return prepare_tasks(
        mixture.tasks,
        lambda task: training_split(task.dataset, config.data.splits),
        config.data.source,
        load_vocabulary(config.data.vocabulary),
        store_folder(config.data.store),
        workers=os.cpu_count() or 1 if workers is None else workers,
        seed=config.seed,
    )


def prepare_tasks(
    tasks: Iterable[Task],
    split_of: Callable[[Task], str],
    source: str,
    vocabulary: Vocabulary,
    store: Path,
    workers: int = 1,
    seed: int = 0,
) -> list[Prepared]:
    """Put tasks into the token store, in the order given. Complete ones are checked against their checksum and kept.

    The work is done in shards of one split under all templates of its dataset. A finished shard is kept, so that
    preparation can be stopped at any time and started again.

    Args:
        tasks: what to prepare.
        split_of: split of each task, e.g. `train` or `test[:1000]`.
        source: `hub` or a folder with rows.
        vocabulary: makes the ids.
        store: folder of the token store.
        workers: processes; with 1 everything happens in this one.
        seed: decides the draws of templates that choose at random.

    Raises:
        UserError: rows that are not at hand, a template naming a missing column, a folder that cannot be written.
    """
    plans = _plan(list(tasks), split_of, source, vocabulary, store, seed)
    waiting = list({plan.key.folder: plan for plan in plans if not plan.done}.values())
    make_folder(store)
    shards = list(_shards(waiting, source, vocabulary, store, seed))
    missing = {plan: {file for file in plan.files(store) if not file.exists()} for plan in waiting}
    owners = {file: plan for plan, files in missing.items() for file in files}
    for plan, files in missing.items():
        if not files:
            _assemble(plan, store)
    if shards:
        total = sum(plan.source_rows for plan in waiting)
        done = total - sum(shard.examples for shard in shards)
        with progress("prepare", total, "examples", done=done) as advance:
            for shard in _run(shards, workers):
                advance(shard.examples, note=shard.dataset.key)
                for _, file in shard.tasks:
                    plan = owners[file]
                    missing[plan].remove(file)
                    if not missing[plan]:
                        _assemble(plan, store)
    return [plan.prepared(store) for plan in plans]


@dataclass(frozen=True, eq=False)
class _Plan:
    """A task's split and what is to be done for it."""

    task: Task
    key: StoreKey
    source_rows: int
    done: bool

    def files(self, store: Path) -> list[Path]:
        """The shard files, in order of their rows."""
        work = store / _WORK / self.key.folder.replace("/", "--")
        return [work / f"{start}-{stop}.arrow" for start, stop in _ranges(self.source_rows)]

    def prepared(self, store: Path) -> Prepared:
        folder = store / self.key.folder
        rows = open_folder(folder, verify=False).num_rows
        return Prepared(self.task.name, self.key.split, folder, rows, self.source_rows, made=not self.done)


def _ranges(rows: int) -> list[tuple[int, int]]:
    return [(start, min(start + SHARD_ROWS, rows)) for start in range(0, rows, SHARD_ROWS)]


def _plan(
    tasks: Sequence[Task],
    split_of: Callable[[Task], str],
    source: str,
    vocabulary: Vocabulary,
    store: Path,
    seed: int,
) -> list[_Plan]:
    """Checks everything that can be wrong with the input before any work is done."""
    plans = []
    tables: dict[tuple[str, str], Any] = {}
    for task in tasks:
        split = split_of(task)
        table = tables.get((task.dataset.key, split))
        if table is None:
            table = tables[task.dataset.key, split] = open_table(task.dataset, split, source)
        task.template.check_columns(table.columns)
        key = StoreKey.of(task, parse_split(split), table, vocabulary, seed)
        plans.append(_Plan(task, key, table.num_rows, _is_complete(store / key.folder)))
    return plans


def _is_complete(folder: Path) -> bool:
    try:
        open_folder(folder)
    except UserError:
        return False
    return True


def _shards(plans: Sequence[_Plan], source: str, vocabulary: Vocabulary, store: Path, seed: int) -> Iterator[Shard]:
    """What is still to be rendered, all tasks of a dataset's split together."""
    groups: dict[tuple[str, str], list[_Plan]] = defaultdict(list)
    for plan in plans:
        groups[plan.task.dataset.key, plan.key.split].append(plan)
    for group in groups.values():
        files = [plan.files(store) for plan in group]
        for number, (start, stop) in enumerate(_ranges(group[0].source_rows)):
            wanted = tuple(
                (plan.task, paths[number])
                for plan, paths in zip(group, files, strict=True)
                if not paths[number].exists()
            )
            if wanted:
                yield Shard(
                    group[0].task.dataset, group[0].key.split, source, start, stop, wanted, vocabulary.path, seed
                )


def _run(shards: Sequence[Shard], workers: int) -> Iterator[Shard]:
    """Make the shards; each is given back when it is finished, in any order."""
    if workers <= 1 or len(shards) <= 1:
        yield from map(make_shard, shards)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(shards)), mp_context=spawn)
    try:
        for future in as_completed([pool.submit(make_shard, shard) for shard in shards]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died without a word, most often for want of memory; run the same command with fewer "
            "workers (--workers 1 needs no other process). Finished shards are kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _assemble(plan: _Plan, store: Path) -> None:
    """Put a task's shards together in its folder, and remove them."""
    files = plan.files(store)
    tables = []
    for file in files:
        with pa.memory_map(str(file)) as mapped:
            tables.append(pa.ipc.open_file(mapped).read_all())
    table = pa.concat_tables(tables).combine_chunks()
    batch = table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], table.schema)
    with atomic_folder(store / plan.key.folder, ours=[MANIFEST, TOKENS]) as folder:
        with pa.OSFile(str(folder / TOKENS), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        write_json(folder / MANIFEST, _manifest(plan, batch, folder / TOKENS))
    shutil.rmtree(files[0].parent, ignore_errors=True)
    with suppress(OSError):  # other tasks are still being made there
        files[0].parent.parent.rmdir()


def _manifest(plan: _Plan, batch: pa.RecordBatch, tokens: Path) -> dict[str, Any]:
    return {
        "task": plan.task.name,
        "split": plan.key.split,
        "template": plan.task.template.name,
        "rows": batch.num_rows,
        "source_rows": plan.source_rows,
        "input_tokens": len(batch.column("inputs").flatten()),
        "target_tokens": len(batch.column("targets").flatten()),
        "bytes": tokens.stat().st_size,
        "sha256": file_sha256(tokens),
        "key_parts": plan.key.parts,
        "versions": {name: version(name) for name in ("t0train", "sentencepiece", "pyarrow")},
    }


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
