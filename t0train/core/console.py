"""What is shown on a terminal: tables and JSON on stdout, lines and progress on stderr.

Texts are shown as they stand, whatever is in them. Progress is a rich bar on a terminal, a plain line now and then
elsewhere.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

_PIPE_WIDTH = 1000
"""Columns of a pipe, which has no width: nothing is cut there."""


def say(line: str) -> None:
    """Print a line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Print plain values as JSON on stdout; letters that stdout cannot encode are escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2)
    print(text)


class ConsoleTable:
    """A table for stdout.

    Args:
        header: titles of the columns.
        numbers: titles of those that are aligned right.
        title: of the table.
        is_plain: without lines.
        shows_header: whether the titles of the columns are shown.
        keeps_numbers: on a narrow terminal columns of numbers are not broken into lines.
    """

    def __init__(
        self,
        header: Sequence[str],
        numbers: Collection[str] = (),
        title: str = "",
        is_plain: bool = False,
        shows_header: bool = True,
        keeps_numbers: bool = False,
    ) -> None:
        from rich import box
        from rich.table import Table

        from t0train.core.text import printable

        self._table = Table(
            title=printable(title) or None,
            title_justify="left",
            box=None if is_plain else box.SIMPLE,
            pad_edge=not is_plain,
            show_header=shows_header,
        )
        for name in header:
            is_number = name in numbers
            self._table.add_column(
                printable(name), justify="right" if is_number else "left", no_wrap=keeps_numbers and is_number
            )

    def add(self, *cells: str, style: str | None = None) -> None:
        """Add a row of plain texts, without characters that would steer a terminal."""
        from t0train.core.text import printable

        self._table.add_row(*map(printable, cells), style=style)

    def show(self) -> None:
        """Print the table; brackets and colons in it mean nothing. In a pipe nothing is cut."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        Console(width=width, markup=False, emoji=False, highlight=False).print(self._table)


def show_records(records: Sequence[Mapping[str, Any]], formats: Mapping[str, str] | None = None) -> None:
    """Print records with the same keys as a plain table: the columns that hold anything, numbers to the right.

    Args:
        records: at least one.
        formats: how the numbers of a key are written, e.g. `.1%`; else with all their digits.
    """
    formats = formats or {}
    keys = [key for key in records[0] if any(record[key] not in (None, "") for record in records)]
    numbers = {key.replace("_", " ") for key in keys if any(_is_number(record[key]) for record in records)}
    header = [key.replace("_", " ") for key in keys]
    table = ConsoleTable(header, numbers, is_plain=True, keeps_numbers=True)
    for record in records:
        table.add(*(_cell(record[key], formats.get(key, ",.10g")) for key in keys))
    table.show()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, number_format: str) -> str:
    if _is_number(value):
        return format(value, number_format)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


class Advance(Protocol):
    """Call with how much was done since the last call, and optionally a short note (e.g. the loss)."""

    def __call__(self, amount: float = 1, note: str = "") -> None:  # noqa: D102 (the class says it)
        ...


@contextmanager
def progress(description: str, total: float, unit: str, done: float = 0, every_s: float = 10.0) -> Iterator[Advance]:
    """Show how far a piece of work has come, its speed in `unit`/s, and the time left.

    Args:
        description: what is being done, e.g. "prepare".
        total: the amount at which the work is complete.
        unit: what `total` counts, in the plural, e.g. "examples".
        done: how much was complete before (a resumed run).
        every_s: seconds between two plain lines when stderr is no terminal.
    """
    if sys.stderr.isatty():
        with _bar(description, total, unit, done) as advance:
            yield advance
    else:
        yield _lines(description, total, unit, done, every_s)


@contextmanager
def _bar(description: str, total: float, unit: str, done: float) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started, amount_done = time.monotonic(), 0.0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task(description, total=total, completed=int(done), speed="", note="")

        def advance(amount: float = 1, note: str = "") -> None:
            nonlocal amount_done
            amount_done += amount
            speed = amount_done / max(time.monotonic() - started, 1e-9)
            bar.update(row, advance=amount, speed=f"{speed:,.1f} {unit}/s", note=note)

        yield advance


def _lines(description: str, total: float, unit: str, done: float, every_s: float) -> Advance:
    started = last = time.monotonic()
    complete, since_start = done, 0.0

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal complete, since_start, last
        complete += amount
        since_start += amount
        now = time.monotonic()
        if now - last < every_s and complete < total:
            return
        last = now
        speed = since_start / max(now - started, 1e-9)
        left = (total - complete) / speed if speed else 0.0
        line = f"{description}: {complete:,.0f}/{total:,.0f} {unit}, {speed:,.1f} {unit}/s, {left:,.0f} s left"
        say(f"{line}  {note}".rstrip())

    return advance
