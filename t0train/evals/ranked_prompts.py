"""What is ranked: the items of one prompt, from the token store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from t0train.core.hashing import content_hash
from t0train.data import TaskTokens, Vocabulary, open_folder, prepare_tasks
from t0train.evals.ranking import Item
from t0train.evals.suites import LEFT_OUT, SuiteEntry, draw_rows
from t0train.evals.texts import REMARKS, describe_example, drawn_rows, render_rows
from t0train.prompts import Note
from t0train.tasks import Table, Task


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


def stored_prompts(
    entry: SuiteEntry, table: Table, source: str, vocabulary: Vocabulary, store: Path, limit: int | None, seed: int
) -> list[StoredPrompt]:
    """Render and tokenise what is not in the store yet, and draw the rows of the table to score."""
    prepared = prepare_tasks(
        entry.tasks, lambda _: entry.split, source, vocabulary, store, workers=os.cpu_count() or 1, seed=seed
    )
    table.watch.check()  # what was prepared are the rows of this table
    drawn = draw_rows(entry, table.num_rows, limit, seed)
    read = cache(partial(drawn_rows, entry, table, drawn))  # once for all prompts, if it is needed
    return [
        StoredPrompt(
            task,
            open_folder(made.folder, verify=False),  # prepare_tasks has compared its checksum
            drawn,
            partial(_count_notes, task, read, seed),
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
