"""Splits as a user writes them: `train`, or a slice of it by rows: `test[:1000]`, `test[1000:]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from t0train.core.errors import UserError

_SPLIT = re.compile(r"(?P<name>\w[\w.-]*)(?:\[(?P<start>\d{0,15}):(?P<stop>\d{0,15})\])?", re.ASCII)


@dataclass(frozen=True)
class Split:
    """Rows `start` to `stop` (None: the end) of the split `name`."""

    name: str
    start: int = 0
    stop: int | None = None

    def __str__(self) -> str:
        if self.start == 0 and self.stop is None:
            return self.name
        return f"{self.name}[{self.start or ''}:{'' if self.stop is None else self.stop}]"

    def bounds(self, rows: int) -> tuple[int, int]:
        """First row and end of the slice in a split of `rows` rows; the two are equal when nothing is left."""
        stop = rows if self.stop is None else min(self.stop, rows)
        return min(self.start, stop), stop

    def overlaps(self, other: Split) -> bool:
        """Whether some row can belong to both."""
        if self.name != other.name:
            return False
        return (other.stop is None or self.start < other.stop) and (self.stop is None or other.start < self.stop)


def parse_split(text: str) -> Split:
    """Read `name`, `name[a:b]`, `name[:b]` or `name[a:]`; rows count from 0, b is not included.

    Raises:
        UserError: malformed (percentages and negative numbers included), or a slice that is empty by its own numbers.
    """
    match = _SPLIT.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"split {text!r} cannot be read; write a name, or one with a range of rows: train, test[:100], test[100:]."
        )
    start, stop = int(match["start"] or 0), int(match["stop"]) if match["stop"] else None
    if stop is not None and start >= stop:
        raise UserError(f"split {text!r} is empty: its first row {start} is not below its end {stop}.")
    return Split(match["name"], start, stop)
