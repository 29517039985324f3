"""The event log of a run: one JSON object a line. Console, trackers and reports read it; nothing else is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import fsync, open_to_append, write_atomic

_LONGEST = 16 << 20  # bytes of a line; the longest that t0train writes have some hundred kilobytes


class EventLog:
    """Appends events to `path`. Every event has a `kind`; events of training steps also have a `step`.

    Args:
        path: the file.
        is_open: False for the processes of a run that leave writing to the first one.
    """

    def __init__(self, path: Path, is_open: bool = True) -> None:
        self.path, self.is_open = path, is_open

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event and flush it to the operating system."""
        if not self.is_open:
            return
        line = json.dumps({"kind": kind, **fields}, ensure_ascii=False)
        with explain_os_errors("write to", self.path), open_to_append(self.path) as stream:
            stream.write(line + "\n")

    def flush(self) -> None:
        """Flush what was written to the disk."""
        if self.is_open and self.path.exists():
            with explain_os_errors("write to", self.path):
                fsync(self.path)

    def rewind(self, step: int) -> None:
        """Drop the events of steps after `step`, and a half-written last line: they will be written again."""
        if not self.path.exists():
            return
        kept = [event for event in read_events(self.path) if event.get("step", 0) <= step]
        write_atomic(self.path, "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept))


def read_events(path: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """The events of a log, optionally of one kind. A half-written last line (a killed run) is left out.

    Raises:
        UserError: a line that is no event, by its number.
    """
    with path.open("rb") as stream:
        for number in count(1):
            line = stream.readline(_LONGEST)
            if not line.endswith(b"\n") and len(line) < _LONGEST:
                return
            event = _event(line, path, number)
            if kind is None or event["kind"] == kind:
                yield event


def _event(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        event = json.loads(line) if len(line) < _LONGEST else None
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or type(event.get("kind")) is not str or type(event.get("step", 0)) is not int:
        shown = line[:60].decode(errors="replace").strip()
        raise UserError(
            f"{path} is damaged: line {number} is no event of t0train, which is a JSON object with a kind, and a whole "
            f"number as step if it has one; found {shown!r}. Remove the line, or move the file away: a run goes on "
            "without it."
        )
    return event
