"""The work of an evaluation: for each dataset at hand, the prompts to rank or to generate from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t0train.config import SuiteConfig
from t0train.core.errors import UserError
from t0train.data import Vocabulary, store_folder
from t0train.evals.bigbench import big_bench_prompts
from t0train.evals.ranked_prompts import RankedPrompt, stored_prompts
from t0train.evals.suites import SuiteEntry, resolve_suite, split_missing, task_files
from t0train.evals.texts import EMPTY_TARGET, TextPrompt, text_prompts
from t0train.results.results_json import Missing
from t0train.tasks import Dataset, Watch, list_missing, load_catalogue, open_table, parse_split
from t0train.tasks.formats import content_identity, file_states

_NO_ROW = "no prompt applies to any row that was drawn"
_NO_SCORES = 'no example that was drawn has "target_scores", so there are no choices to rank'


@dataclass(frozen=True)
class Job:
    """One dataset of the suite, ready to be scored: ranked prompts or prompts to generate from.

    `revision` is the identity of its rows.
    """

    entry: SuiteEntry
    revision: str
    ranked: Sequence[RankedPrompt] = ()
    texts: Sequence[TextPrompt] = ()

    @property
    def rows(self) -> list[NDArray[np.int64]]:
        """The dataset rows that each prompt applies to."""
        return [prompt.rows for prompt in self.ranked] or [prompt.rows for prompt in self.texts]

    @property
    def items(self) -> int:
        """Rows of all prompts."""
        return sum(map(len, self.rows))


def build_jobs(
    vocabulary: Vocabulary,
    suite: SuiteConfig,
    source: str = "hub",
    store: str = "",
    catalogue: Mapping[str, Dataset] | None = None,
    templates: Sequence[Path] = (),
    limit: int | None = None,
    seed: int = 0,
) -> tuple[list[Job], list[Missing]]:
    """Render and tokenise what a suite asks for, and say what is not at hand. Arguments as for `evaluate`.

    Raises:
        UserError: unknown dataset or template, nothing at hand, no prompt applies to any row, a prompt under which no
            answer can be right.
    """
    entries = resolve_suite(suite, load_catalogue() if catalogue is None else catalogue, templates, seed)
    entries, missing = split_missing(entries, source)
    jobs = [_job(entry, source, vocabulary, store_folder(store), limit, seed) for entry in entries]
    empty = [
        Missing(
            dataset=job.entry.dataset.key,
            split=job.entry.split,
            reason=_NO_SCORES if job.entry.asked.kind == "bigbench" else _NO_ROW,
        )
        for job in jobs
        if not job.items
    ]
    jobs = [job for job in jobs if job.items]
    if not suite.allow_empty_targets:
        for job in jobs:
            _refuse_hopeless(job, suite.name)
    if not jobs and entries:
        lines = list_missing([(table.dataset, table.split, table.reason) for table in empty])
        raise UserError(f"suite {suite.name}: nothing to score:\n{lines}")
    return jobs, [*missing, *empty]


def _job(entry: SuiteEntry, source: str, vocabulary: Vocabulary, store: Path, limit: int | None, seed: int) -> Job:
    if entry.asked.kind == "bigbench":
        folder = Path(source, entry.dataset.key)
        opened = file_states(task_files(folder))
        watch = Watch(str(folder), parse_split(entry.split), lambda: file_states(task_files(folder)) == opened)
        prompts = big_bench_prompts(entry, source, vocabulary, limit, seed)
        revision = content_identity(task_files(folder))
        watch.check()
        return Job(entry, revision, ranked=prompts)
    table = open_table(entry.dataset, entry.split, source)
    if entry.asked.kind == "generate":
        return Job(entry, table.revision, texts=text_prompts(entry, table, vocabulary, limit, seed))
    return Job(entry, table.revision, ranked=stored_prompts(entry, table, source, vocabulary, store, limit, seed))


def _refuse_hopeless(job: Job, suite: str) -> None:
    """Refuse prompts whose right answers say nothing, in all rows that are drawn: labels that index no choice, nulls.

    Texts that are no choice are another matter: some published prompts have such targets, and it is said of them.
    """
    for name, rows, remarks in [
        *((prompt.name, len(prompt.rows), prompt.remarks) for prompt in job.ranked),
        *((text.task.template.name, len(text.inputs), text.remarks) for text in job.texts),
    ]:
        if rows and remarks.get(EMPTY_TARGET) == rows:
            said = "; ".join(f"{remark}: {number:,}" for remark, number in remarks.items() if remark != EMPTY_TARGET)
            raise UserError(
                f"suite {suite}, {job.entry.dataset.key} {job.entry.split}, prompt {name!r}: none of the {rows:,} "
                f"right answers says anything ({said}), so no answer can be right. {_REMEDY}"
            )


_REMEDY = (
    "Correct the rows or the template (labels are whole numbers, counted from 0), leave the prompt out of the suite "
    "(`prompts`), or set allow_empty_targets in it to go on."
)
