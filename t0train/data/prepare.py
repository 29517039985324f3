"""Making the token store: shards in local processes, finished ones kept across restarts, then put together by task."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from t0train.config import RunConfig
from t0train.core.console import progress, say
from t0train.core.errors import UserError
from t0train.core.files import atomic_folder, make_folder, remove_leftovers, write_json
from t0train.core.hashing import file_sha256
from t0train.core.lock import hold_lock
from t0train.core.processes import follow_parent, no_interrupts_for_children
from t0train.data.counts import COUNTS, Counts, refuse_faults
from t0train.data.shards import SHARD_ROWS, Shard, make_shard
from t0train.data.store import (
    MANIFEST,
    PLACE,
    TOKENS,
    StoreKey,
    open_folder,
    store_folder,
)
from t0train.data.vocabulary import Vocabulary, load_vocabulary
from t0train.mixture import build_mixture, check_sources
from t0train.tasks import Table, Task, Watch, open_table, parse_split, training_split

_WORK = ".work"
_LOCK = ".lock"


@dataclass(frozen=True)
class Prepared:
    """A task's split in the store.

    Attributes:
        folder: where it is.
        rows: examples.
        source_rows: rows of the source split; those beyond `rows` were dropped by the template.
        made: False if it was there already.
        counts: what is dubious about the examples, in numbers.
    """

    task: str
    split: str
    folder: Path
    rows: int
    source_rows: int
    made: bool
    counts: Counts


def prepare(config: RunConfig, workers: int | None = None) -> list[Prepared]:
    """Put every task of a run's mixture into the token store; what is there already is left as it is.

    Args:
        config: the run.
        workers: processes; default: as many as cores.

    Raises:
        UserError: missing records, a template naming a missing column, a folder that cannot be written; after
            everything was prepared, tasks whose targets teach nothing (`data.allow_empty_targets`).
    """
    mixture = build_mixture(config.mixture, config.data)
    check_sources(mixture, config.data).require()
    prepared = prepare_tasks(
        mixture.tasks,
        lambda task: training_split(task.dataset, config.data.splits),
        config.data.source,
        load_vocabulary(config.data.vocabulary),
        store_folder(config.data.store),
        workers=os.cpu_count() or 1 if workers is None else workers,
        seed=config.seed,
    )
    if not config.data.allow_empty_targets:
        refuse_faults({task.task: task.counts for task in prepared})
    return prepared


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
    preparation can be stopped at any time and started again. One process at a time prepares in a store; another one
    waits for it, and then does what is left to do.

    Args:
        tasks: what to prepare.
        split_of: split of each task, e.g. `train` or `test[:1000]`.
        source: `hub` or a folder with rows.
        vocabulary: makes the ids.
        store: folder of the token store.
        workers: processes; with 1 everything happens in this one.
        seed: decides the draws of templates that choose at random.

    Raises:
        UserError: missing records, a template naming a missing column, a folder that cannot be written; rows
            or a vocabulary that change meanwhile, of which nothing is stored then.
    """
    plans = _plan(list(tasks), split_of, source, vocabulary, store, seed)
    if not all(plan.done for plan in plans):
        make_folder(store)
        with _locked(store):
            plans = [plan if plan.done else replace(plan, done=_is_complete(store / plan.key.folder)) for plan in plans]
            _remove_leftovers(plans, store)
            waiting = list({plan.key.folder: plan for plan in plans if not plan.done}.values())
            try:
                _make(waiting, source, vocabulary, store, workers, seed)
            except UserError:
                _forget_changed(waiting, store)
                raise
    return [plan.prepared(store) for plan in plans]


def _locked(store: Path) -> AbstractContextManager[None]:
    return hold_lock(store / _LOCK, f"preparing tasks in {store}", say)


def wait_for_preparation(store: Path) -> bool:
    """Wait until no other process prepares tasks in a store; False if none did."""
    waited: list[str] = []

    def note(line: str) -> None:
        waited.append(line)
        say(line)

    if (store / _LOCK).exists():
        with suppress(UserError), hold_lock(store / _LOCK, f"preparing tasks in {store}", note):
            pass  # a store that cannot be written to is prepared by nobody either
    return bool(waited)


@dataclass(frozen=True, eq=False)
class _TaskPlan:
    """A task's split and what is to be done for it."""

    task: Task
    key: StoreKey
    source_rows: int
    watch: Watch
    vocabulary: Vocabulary
    done: bool

    def work(self, store: Path) -> Path:
        """The folder of the shards."""
        return store / _WORK / self.key.folder.replace("/", "--")

    def files(self, store: Path) -> list[Path]:
        """The shard files, in order of their rows."""
        return [self.work(store) / f"{start}-{stop}.arrow" for start, stop in _ranges(self.source_rows)]

    def check_unchanged(self) -> None:
        """Refuse to go on where the rows or the vocabulary are not those that were planned with any more."""
        self.watch.check()
        self.vocabulary.check_unchanged()

    def prepared(self, store: Path) -> Prepared:
        folder = store / self.key.folder
        tokens = open_folder(folder, verify=False)
        return Prepared(
            self.task.name, self.key.split, folder, tokens.num_rows, self.source_rows, not self.done, tokens.counts
        )


def _ranges(rows: int) -> list[tuple[int, int]]:
    return [(start, min(start + SHARD_ROWS, rows)) for start in range(0, rows, SHARD_ROWS)]


def _plan(
    tasks: Sequence[Task],
    split_of: Callable[[Task], str],
    source: str,
    vocabulary: Vocabulary,
    store: Path,
    seed: int,
) -> list[_TaskPlan]:
    """Checks everything that can be wrong with the input before any work is done."""
    plans = []
    tables: dict[tuple[str, str], Table] = {}
    for task in tasks:
        split = split_of(task)
        table = tables.get((task.dataset.key, split))
        if table is None:
            table = tables[task.dataset.key, split] = open_table(task.dataset, split, source)
        task.template.check_columns(table.columns)
        key = StoreKey.of(task, parse_split(split), table, vocabulary, seed)
        done = _is_complete(store / key.folder)
        plans.append(_TaskPlan(task, key, table.num_records, table.watch, vocabulary, done))
    return plans


def _is_complete(folder: Path) -> bool:
    try:
        open_folder(folder)
    except UserError:
        return False
    return True


def _remove_leftovers(plans: Sequence[_TaskPlan], store: Path) -> None:
    """Remove what ended processes left. The lock is held, so nobody else is at work.

    Finished shards of other tasks are kept: they are for whoever goes on with those. Shards of these tasks that were
    made of something else, or whose task was put together, are of no more use.
    """
    for folder in (store, *(path for path in store.iterdir() if path.is_dir())):
        remove_leftovers(folder, exclusive=True)
    wanted = {plan.work(store) for plan in plans if not plan.done}
    tasks = {f"{plan.task.name}--" for plan in plans}
    for folder in (store / _WORK).glob("*"):
        remove_leftovers(folder, exclusive=True)
        if folder not in wanted and any(folder.name.startswith(task) for task in tasks):
            shutil.rmtree(folder, ignore_errors=True)
    _remove_work_folder(store)


def _forget_changed(plans: Sequence[_TaskPlan], store: Path) -> None:
    """Remove the shards of what cannot be put together any more, as its rows or vocabulary changed."""
    for plan in plans:
        try:
            plan.check_unchanged()
        except UserError:
            shutil.rmtree(plan.work(store), ignore_errors=True)
    _remove_work_folder(store)


def _remove_work_folder(store: Path) -> None:
    with suppress(OSError):  # there is none, or shards of other tasks are in it
        (store / _WORK).rmdir()


def _make(
    plans: Sequence[_TaskPlan], source: str, vocabulary: Vocabulary, store: Path, workers: int, seed: int
) -> None:
    """Render and tokenise what is left to do, and put together each task as soon as its shards are there."""
    shards = list(_shards(plans, source, vocabulary, store, seed))
    missing = {plan: {file for file in plan.files(store) if not file.exists()} for plan in plans}
    owners = {file: plan for plan, files in missing.items() for file in files}
    for plan, files in missing.items():
        if not files:
            _assemble(plan, store)
    if not shards:
        return
    total = sum(plan.source_rows for plan in plans)
    done = total - sum(shard.examples for shard in shards)
    with progress("prepare", total, "examples", done=done) as advance:
        for shard in _run(shards, workers):
            advance(shard.examples, note=shard.dataset.key)
            for _, file in shard.tasks:
                plan = owners[file]
                missing[plan].remove(file)
                if not missing[plan]:
                    _assemble(plan, store)


def _shards(plans: Sequence[_TaskPlan], source: str, vocabulary: Vocabulary, store: Path, seed: int) -> Iterator[Shard]:
    """What is still to be rendered, all tasks of a dataset's split together."""
    groups: dict[tuple[str, str], list[_TaskPlan]] = defaultdict(list)
    for plan in plans:
        groups[plan.task.dataset.key, plan.key.split].append(plan)
    for (_, split), group in groups.items():
        first, files = group[0], [plan.files(store) for plan in group]
        for number, (start, stop) in enumerate(_ranges(first.source_rows)):
            wanted = tuple(
                (plan.task, paths[number])
                for plan, paths in zip(group, files, strict=True)
                if not paths[number].exists()
            )
            if wanted:
                yield Shard(
                    dataset=first.task.dataset,
                    split=split,
                    source=source,
                    revision=first.key.parts["source"],
                    start=start,
                    stop=stop,
                    tasks=wanted,
                    vocabulary=vocabulary.path,
                    fingerprint=vocabulary.fingerprint,
                    seed=seed,
                )


def _run(shards: Sequence[Shard], workers: int) -> Iterator[Shard]:
    """Make the shards; each is given back when it is finished, in any order."""
    if workers <= 1 or len(shards) <= 1:
        yield from map(make_shard, shards)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(shards)), mp_context=spawn, initializer=follow_parent)
    try:
        with no_interrupts_for_children():
            futures = [pool.submit(make_shard, shard) for shard in shards]
        for future in as_completed(futures):
            yield future.result()
    except (BrokenProcessPool, BrokenPipeError) as error:  # the latter if it dies while it is being started
        raise UserError(
            "a worker process died without a word, most often for want of memory; run the same command with fewer "
            "workers (--workers 1 needs no other process). Finished shards are kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _assemble(plan: _TaskPlan, store: Path) -> None:
    """Put a task's shards together in its folder, and remove them."""
    plan.check_unchanged()
    tables, counts = [], Counts()
    for file in plan.files(store):
        with pa.memory_map(str(file)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        tables.append(table)
        counts += Counts.read(table.schema.metadata[COUNTS.encode()])
    table = pa.concat_tables([table.replace_schema_metadata() for table in tables]).combine_chunks()
    table = table.replace_schema_metadata({PLACE: plan.key.folder})
    batch = table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], table.schema)
    with atomic_folder(store / plan.key.folder, ours=[MANIFEST, TOKENS]) as folder:
        with pa.OSFile(str(folder / TOKENS), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        write_json(folder / MANIFEST, _manifest(plan, batch, counts, folder / TOKENS))
    shutil.rmtree(plan.work(store), ignore_errors=True)
    _remove_work_folder(store)


def _manifest(plan: _TaskPlan, batch: pa.RecordBatch, counts: Counts, tokens: Path) -> dict[str, Any]:
    return {
        "task": plan.task.name,
        "split": plan.key.split,
        "template": plan.task.template.name,
        "rows": batch.num_rows,
        "source_rows": plan.source_rows,
        "input_tokens": counts.input_tokens,
        "target_tokens": counts.target_tokens,
        "counts": asdict(counts),
        "bytes": tokens.stat().st_size,
        "sha256": file_sha256(tokens),
        "key_parts": plan.key.parts,
        "versions": {name: version(name) for name in ("t0train", "sentencepiece", "pyarrow")},
    }
