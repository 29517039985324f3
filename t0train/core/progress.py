"""Progress on long work: a rich bar on a terminal, a plain line now and then elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Call with how much was done since the last call, and optionally a short note (e.g. the loss)."""

    def __call__(self, amount: float = 1, note: str = "") -> None:  # noqa: D102 (the class says it)
        ...


def say(line: str) -> None:
    """Print a line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


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
