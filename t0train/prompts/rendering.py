"""The state of one rendering: its random draws, what it notes, and what it may still cost.

A template is somebody else's program. Its costs are counted in units of about a character copied or some nanoseconds:
the same row gives the same count on any machine, as a limit of seconds would not.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from t0train.prompts.notes import Note

BUDGET = 40_000_000  # units; at worst one or two seconds. Templates of the collection spend some thousands a row
ELEMENT = 20  # units for an element of a list or a dict that is looked at
STEP = 50  # units for a step of a loop or a filter, besides the characters
MACRO = 250  # units for the call of a macro
NODE = 10  # units for a name, a constant or an operation in what is repeated

VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS = (list, tuple, dict, range, *VIEWS)


class CostError(Exception):
    """A template would cost more time or memory than a template may."""


class Rendering:
    """Handed to the filters and functions of a template through Jinja's context.

    The generator of the draws is Python's own, so that a rendering with seed `s` equals promptsource's after
    `random.seed(s)`; it is made on the first draw, as most templates draw nothing. `notes` stays None likewise.

    Attributes:
        seed: decides the draws.
        owns_row: the values of the row are copies, which the template may change.
        notes: what is dubious so far; None for nothing.
        left: units that may still be spent.
    """

    __slots__ = ("_generator", "left", "notes", "owns_row", "seed")

    def __init__(self, seed: int, owns_row: bool = True):
        self.seed = seed
        self.owns_row = owns_row
        self.notes: set[Note] | None = None
        self.left = BUDGET
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

    def spend(self, units: int) -> None:
        """Count costs before they arise.

        Raises:
            CostError: that is more than may be spent.
        """
        self.left -= units
        if self.left < 0:
            raise CostError(
                "it makes texts or lists too large, or loops too often; one row may cost about"
                f" {BUDGET // 1_000_000} million characters, or {BUDGET // STEP:,} steps of loops"
            )

    def spend_on(self, value: Any) -> int:
        """Count the costs of going through a value, however deep: a list may hold one other list many times.

        Returns:
            The costs.

        Raises:
            CostError: the value is larger than what may be spent.
        """
        if isinstance(value, str | bytes):
            units = len(value)
            self.left -= units
            if self.left < 0:
                self.spend(0)
            return units
        if not isinstance(value, _CONTAINERS):
            return 0
        total = 0
        pending: list[Any] = [value]
        while pending:
            part = pending.pop()
            units = ELEMENT * (1 + len(part))
            if not isinstance(part, range):
                for element in (*part, *part.values()) if isinstance(part, dict) else part:
                    if isinstance(element, str | bytes):
                        units += len(element)
                    elif isinstance(element, _CONTAINERS):
                        pending.append(element)
            self.spend(units)
            total += units
        return total
