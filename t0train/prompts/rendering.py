"""The state of one rendering: its random draws, and what it notes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from t0train.prompts.notes import Note


class Rendering:
    """Handed to the filters and functions of a template through Jinja's context.

    The generator of the draws is Python's own, so that a rendering with seed `s` equals promptsource's after
    `random.seed(s)`; it is made on the first draw, as most templates draw nothing. `notes` stays None likewise.
    """

    __slots__ = ("_generator", "notes", "seed")

    def __init__(self, seed: int):
        self.seed = seed
        self.notes: set[Note] | None = None
        self._generator: random.Random | None = None

    def choice(self, options: Sequence[Any]) -> Any:
        """One element of `options`; IndexError when there is none."""
        if self._generator is None:
            self._generator = random.Random(self.seed)
        return self._generator.choice(options)

    def note(self, note: Note) -> None:
        """Remember that the example has this note."""
        if self.notes is None:
            self.notes = set()
        self.notes.add(note)
