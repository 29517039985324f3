"""The work of an evaluation: for each dataset at hand, the prompts to rank or to generate from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from t0train.core.errors import UserError, nearest
from t0train.core.hashing import content_hash, derive_seed
from t0train.data import TaskTokens, Vocabulary, open_folder, prepare_tasks, store_folder
from t0train.data.store import StoreKey
from t0train.evals.bigbench import big_bench_prompts
from t0train.evals.eval_config import LEFT_OUT, EvalConfig, SuiteEntry, resolve_suite, split_missing, task_files
from t0train.evals.rank import Item
from t0train.prompts import NO_LABEL, Note, Rendered, columns_read
from t0train.results.results_json import Missing
from t0train.tasks import Table, Task, Watch, list_missing, open_table, parse_split
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


def open_datasets(config: EvalConfig, vocabulary: Vocabulary) -> tuple[list[Job], list[Missing]]:
    """Render and tokenise the datasets of a suite, and list those that cannot be scored.

    Args:
        config: what is evaluated.
        vocabulary: of the model.

    Raises:
        UserError: unknown dataset or template, no dataset that is available, no prompt applies to any record, a prompt
            under which no answer can be right.
    """
    entries = resolve_suite(config)
    entries, missing = split_missing(entries, config.source)
    jobs = [_open(entry, config, vocabulary) for entry in entries]
    empty = [
        Missing(
            dataset=job.entry.dataset.key,
            split=job.entry.split,
            reason=_NO_SCORES if job.entry.spec.kind == "bigbench" else _NO_ROW,
        )
        for job in jobs
        if not job.items
    ]
    jobs = [job for job in jobs if job.items]
    if not config.suite.allow_empty_targets:
        for job in jobs:
            _refuse_hopeless(job, config.suite.name)
    if not jobs and entries:
        lines = list_missing([(table.dataset, table.split, table.reason) for table in empty])
        raise UserError(f"suite {config.suite.name}: nothing to score:\n{lines}")
    return jobs, [*missing, *empty]


def _open(entry: SuiteEntry, config: EvalConfig, vocabulary: Vocabulary) -> Job:
    if entry.spec.kind == "bigbench":
        folder = Path(config.source, entry.dataset.key)
        opened = file_states(task_files(folder))
        watch = Watch(str(folder), parse_split(entry.split), lambda: file_states(task_files(folder)) == opened)
        prompts = big_bench_prompts(entry, config, vocabulary)
        revision = content_identity(task_files(folder))
        watch.check()
        return Job(entry, revision, ranked=prompts)
    table = open_table(entry.dataset, entry.split, config.source)
    if entry.spec.kind == "generate":
        return Job(entry, table.revision, texts=generation_prompts(entry, table, config, vocabulary))
    return Job(entry, table.revision, ranked=rank_prompts(entry, table, config, vocabulary))


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


EMPTY_TARGET = "the right answer says nothing"
"""Remark on examples whose target is <NO LABEL>, blank, a null, or lacks the choice that it should name."""

REMARKS = {
    Note.NO_LABEL: f"the target is {NO_LABEL}",
    Note.NO_CHOICE: "the label selects no choice",
    Note.LAST_CHOICE: "the label is negative: it counts from the last choice",
    Note.NOT_A_CHOICE: "the target is not among the choices",
    Note.BLANK_TARGET: "the target shows nothing",
    Note.NULL_TARGET: 'the target is "None", made of a null',
    Note.NULL: 'a null is printed as "None"',
    Note.UNDEFINED: "a field that does not exist is printed",
}
"""What is said of the examples with a note of the renderer."""

_EMPTY = {Note.NO_LABEL, Note.NO_CHOICE, Note.BLANK_TARGET, Note.NULL_TARGET}
_CHUNK = 1024  # rows read at once


@dataclass(frozen=True)
class TextPrompt:
    """A prompt's rendered examples.

    Attributes:
        task: dataset and template.
        identity: hash of all that decides the examples and their scores, whichever rows are drawn.
        rows: [examples] the dataset row of each.
        inputs: what the model reads.
        references: each one's right answers, the template's target first.
        remarks: what is odd about the examples, with their number.
    """

    task: Task
    identity: str
    rows: NDArray[np.int64]
    inputs: list[str]
    references: list[list[str]]
    remarks: dict[str, int]


def generation_prompts(entry: SuiteEntry, table: Table, config: EvalConfig, vocabulary: Vocabulary) -> list[TextPrompt]:
    """Render the rows of a table that are drawn under every prompt.

    Raises:
        UserError: a column missing that a template or `references` names.
    """
    for task in entry.tasks:
        task.template.check_columns(table.columns)
    rows = drawn_rows(entry, table, config.draw_records(entry, table.num_records))
    spec = entry.spec
    judged = [spec.references, spec.max_new_tokens, spec.metrics[0]]
    prompts = []
    for task in entry.tasks:
        key = StoreKey.of(task, table.split, table, vocabulary, config.seed)  # not stored, but identified alike
        prompts.append(_render(task, content_hash([key.parts, *judged]), rows, spec.references, config.seed))
    return prompts


def drawn_rows(entry: SuiteEntry, table: Table, drawn: NDArray[np.bool_]) -> dict[int, dict[str, Any]]:
    """The drawn rows by number, with the columns that are needed."""
    answers = entry.spec.references.partition(".")[0]
    if answers and answers not in table.columns:
        raise UserError(f"references: {entry.dataset.key} has no column {answers!r}; {nearest(answers, table.columns)}")
    read = set(columns_read((task.template for task in entry.tasks), table.columns))
    columns = [name for name in table.columns if name in read or name == answers]
    rows = {}
    for start in range(0, len(drawn), _CHUNK):
        wanted = np.flatnonzero(drawn[start : start + _CHUNK])
        if len(wanted):
            chunk = table.records(start, start + _CHUNK, columns or table.columns[:1])
            rows.update({start + i: chunk[i] for i in wanted.tolist()})
    return rows


def render_rows(task: Task, rows: Mapping[int, dict[str, Any]], seed: int) -> Iterator[tuple[int, Rendered]]:
    """The examples that the template does not drop, drawing as in the token store where it draws at random."""
    for number, row in rows.items():
        example = task.template.render(row, derive_seed(seed, task.name, number) if task.template.is_random else 0)
        if example is not None:
            yield number, example


def describe_example(example: Rendered, has_other_answers: bool = False) -> Iterator[str]:
    """What is to be said of an example: of its notes, and whether its right answers say nothing."""
    if not has_other_answers and not _EMPTY.isdisjoint(example.notes):
        yield EMPTY_TARGET
    yield from (REMARKS[note] for note in sorted(example.notes))


def _render(task: Task, identity: str, rows: dict[int, dict[str, Any]], references: str, seed: int) -> TextPrompt:
    kept: list[int] = []
    notes: Counter[str] = Counter()
    inputs: list[str] = []
    answers: list[list[str]] = []
    for number, example in render_rows(task, rows, seed):
        kept.append(number)
        inputs.append(example.input)
        answers.append(list(dict.fromkeys([example.target, *_answers(rows[number], references)])))
        notes.update(describe_example(example, has_other_answers=len(answers[-1]) > 1))
    notes[LEFT_OUT] = len(rows) - len(kept)
    remarks = {remark: number for remark, number in notes.items() if number}
    return TextPrompt(task, identity, np.array(kept, dtype=np.int64), inputs, answers, remarks)


def _answers(row: dict[str, Any], path: str) -> list[str]:
    """All right answers that a row names: a text or a list of texts."""
    value: Any = row
    for key in path.split(".") if path else ():
        if not isinstance(value, dict) or key not in value:
            raise UserError(f"references: {path!r} leads to nothing; found {value!r:.80} where {key!r} was looked up.")
        value = value[key]
    if not path:
        return []
    return [str(answer) for answer in (value if isinstance(value, list) else [value])]


class RankedPrompt(Protocol):
    """A prompt and the items to score under it.

    Attributes:
        name: of the prompt, unique in its dataset.
        task: of dataset and prompt together.
        identity: hash of all that decides the items, whichever of them are drawn: rows, texts, vocabulary.
        rows: [items] the dataset row of each item.
        classes: how many choices every item has, if they are the same for every item; else None.
    """

    name: str
    task: str
    identity: str
    rows: NDArray[np.int64]
    classes: int | None

    @property
    def remarks(self) -> dict[str, int]:
        """What is odd about its items, with their number."""
        ...

    def item(self, i: int) -> Item:
        """Input ids, and the ids of each choice."""
        ...

    def gold(self, i: int) -> int:
        """Index of the gold choice, -1 if the gold target is no choice."""
        ...

    def grades(self, i: int) -> NDArray[np.float64]:
        """How right each choice is, 0 to 1."""
        ...


class StoredPrompt:
    """A template's examples in the token store. Attributes as `RankedPrompt` and the following.

    Attributes:
        tokens: all examples of the split, drawn or not.
    """

    def __init__(
        self,
        task: Task,
        tokens: TaskTokens,
        drawn: NDArray[np.bool_],
        notes: Callable[[], Mapping[str, int]] = dict[str, int],
    ) -> None:
        """`notes` counts what is dubious about the rows that are drawn; it is asked only if that is to be said."""
        self.name, self.task = task.template.name, task.name
        self.identity = content_hash(tokens.manifest["key_parts"])
        self.classes = len(task.template.fixed_choices) if task.template.fixed_choices else None
        rows = np.array([tokens.source_row(item) for item in range(len(tokens))], dtype=np.int64)
        self._items = np.flatnonzero(drawn[rows])
        self.rows = rows[self._items]
        self.tokens, self._notes = tokens, notes
        self._left_out = int(drawn.sum()) - len(self.rows)

    @cached_property
    def remarks(self) -> dict[str, int]:
        """What is odd about its items, with their number."""
        found = {LEFT_OUT: self._left_out, **self._notes()}
        return {remark: number for remark, number in found.items() if number}

    def item(self, i: int) -> Item:
        """Input ids, and the ids of each choice."""
        item = int(self._items[i])
        choices = self.tokens.choices(item)
        assert choices is not None, "a ranked task has answer choices"
        return self.tokens.inputs(item), choices

    def gold(self, i: int) -> int:
        """Index of the gold choice, -1 if the gold target is no choice."""
        return self.tokens.label(int(self._items[i]))

    def grades(self, i: int) -> NDArray[np.float64]:
        """1 for the choices that equal the target, of which the gold one is the first; 0 for the others.

        The original compares bytes. Choices that the vocabulary cannot tell apart tie, the first of them is predicted,
        and one that stands before the gold choice differs from the target in its bytes: it is wrong.
        """
        choices, gold = self.item(i)[1], self.gold(i)
        same = [gold >= 0 and k >= gold and np.array_equal(choice, choices[gold]) for k, choice in enumerate(choices)]
        return np.array(same, dtype=np.float64)


def rank_prompts(entry: SuiteEntry, table: Table, config: EvalConfig, vocabulary: Vocabulary) -> list[StoredPrompt]:
    """Render and tokenise what is not in the store yet, and draw the rows of the table to score."""
    prepared = prepare_tasks(
        entry.tasks,
        lambda _: entry.split,
        config.source,
        vocabulary,
        store_folder(config.store),
        workers=os.cpu_count() or 1,
        seed=config.seed,
    )
    table.watch.check()  # what was prepared are the rows of this table
    drawn = config.draw_records(entry, table.num_records)
    read = cache(partial(drawn_rows, entry, table, drawn))  # once for all prompts, if it is needed
    return [
        StoredPrompt(
            task,
            open_folder(made.folder, verify=False),  # prepare_tasks has compared its checksum
            drawn,
            partial(_count_notes, task, read, config.seed),
        )
        for task, made in zip(entry.tasks, prepared, strict=True)
    ]


def _count_notes(task: Task, read: Callable[[], dict[int, dict[str, Any]]], seed: int) -> Mapping[str, int]:
    """What is dubious about the examples of the drawn rows; that no choice is right is counted elsewhere."""
    notes: Counter[str] = Counter()
    for _, example in render_rows(task, read(), seed):
        notes.update(describe_example(example))
    notes.pop(REMARKS[Note.NOT_A_CHOICE], None)
    return notes
