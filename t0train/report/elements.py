"""What a report is made of: sections of sentences, tables and figures, the same for Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t0train.core.hashing import content_hash
from t0train.report import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 100  # characters of a file's name


@dataclass(frozen=True)
class Table:
    """Cells are plain text. Folded tables start shut.

    The first `names` and the last `notes` columns hold texts, aligned left; those between hold numbers, aligned right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    names: int = 1
    notes: int = 0
    folded: bool = False
    kind: str = "table"

    @property
    def is_text(self) -> list[bool]:
        """Whether each column holds texts."""
        columns = len(self.header)
        return [place < self.names or place >= columns - self.notes for place in range(columns)]


@dataclass(frozen=True)
class Picture:
    """A drawn figure: file name without ending, a sentence for those who cannot see it, the two renderings."""

    name: str
    caption: str
    svg: str
    png: bytes
    kind: str = "picture"


@dataclass(frozen=True)
class Sentences:
    """One paragraph, or a list of points."""

    lines: Sequence[str]
    kind: str = "sentences"


Part = Table | Picture | Sentences


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]


def picture(name: str, caption: str, figure: Figure) -> Picture:
    """A figure, rendered; its file is called by plain characters, whatever the name holds."""
    return Picture(_file_name(name), caption, *figures.render(figure))


def _file_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return name if plain == name and len(name) <= _LONGEST else f"{plain[:_LONGEST]}-{content_hash(name, 8)}"
