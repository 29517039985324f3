"""What is generated from: the texts of the prompts without answer choices, and the right answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t0train.core.errors import UserError, nearest
from t0train.core.hashing import content_hash, derive_seed
from t0train.data import Vocabulary
from t0train.data.store import StoreKey
from t0train.evals.suites import LEFT_OUT, SuiteEntry, draw_rows
from t0train.prompts import NO_LABEL, Note, Rendered, columns_read
from t0train.tasks import Table, Task

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


def text_prompts(
    entry: SuiteEntry, table: Table, vocabulary: Vocabulary, limit: int | None, seed: int
) -> list[TextPrompt]:
    """Render the rows of a table that are drawn under every prompt.

    Raises:
        UserError: a column missing that a template or `references` names.
    """
    for task in entry.tasks:
        task.template.check_columns(table.columns)
    rows = drawn_rows(entry, table, draw_rows(entry, table.num_rows, limit, seed))
    asked = entry.asked
    judged = [asked.references, asked.max_new_tokens, asked.metrics[0]]
    prompts = []
    for task in entry.tasks:
        key = StoreKey.of(task, table.split, table, vocabulary, seed)  # what is written is not stored, but known by it
        prompts.append(_render(task, content_hash([key.parts, *judged]), rows, asked.references, seed))
    return prompts


def drawn_rows(entry: SuiteEntry, table: Table, drawn: NDArray[np.bool_]) -> dict[int, dict[str, Any]]:
    """The drawn rows by number, with the columns that are needed."""
    answers = entry.asked.references.partition(".")[0]
    if answers and answers not in table.columns:
        raise UserError(f"references: {entry.dataset.key} has no column {answers!r}; {nearest(answers, table.columns)}")
    read = set(columns_read((task.template for task in entry.tasks), table.columns))
    columns = [name for name in table.columns if name in read or name == answers]
    rows = {}
    for start in range(0, len(drawn), _CHUNK):
        wanted = np.flatnonzero(drawn[start : start + _CHUNK])
        if len(wanted):
            chunk = table.rows(start, start + _CHUNK, columns or table.columns[:1])
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
