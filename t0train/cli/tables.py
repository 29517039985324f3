"""Tables of the command line: cells are shown as they stand, whatever is in them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def add_row(table: Table, *cells: str, style: str | None = None) -> None:
    """Add a row of plain texts, without characters that would steer a terminal."""
    from t0train.core.text import printable

    table.add_row(*map(printable, cells), style=style)


def show_table(table: Table) -> None:
    """Print a table; brackets and colons in its cells mean nothing. In a pipe, which has no width, nothing is cut."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)
