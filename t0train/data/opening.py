"""Open what `prepare` wrote: a task's tokens, or all that a run draws from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.data.counts import refuse_faults, remarks
from t0train.data.loader import PackedLoader
from t0train.data.prepare import wait_for_preparation
from t0train.data.store import StoreKey, TaskTokens, missing_reason, open_folder, store_folder
from t0train.data.vocabulary import Vocabulary, load_vocabulary
from t0train.mixture import Mixture, build_mixture, check_sources
from t0train.tasks import Task, open_table, parse_split, training_split


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
