"""Rows in JSON lines and in JSON arrays. Every row is its own object: a key that it lacks is not there, not null."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.text import as_object, decode, parse_json, read_json_lines, read_lines, read_text


class JsonRows:
    """Rows of JSON lines, all checked when opened and parsed again when asked for: only their places are kept."""

    def __init__(self, files: Sequence[_Lines | _Array]) -> None:
        self._files = files
        self._ends = np.cumsum([len(file) for file in files], dtype=np.int64)
        self.num_rows = int(self._ends[-1])
        self.columns: Sequence[str] = list(dict.fromkeys(name for file in files for name in file.columns))

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Rows `start` to `stop`; a column that a row lacks is None."""
        rows: list[dict[str, Any]] = []
        for file, end in zip(self._files, self._ends.tolist(), strict=True):
            first = end - len(file)
            if max(start, first) < min(stop, end):
                rows += file.read(max(start, first) - first, min(stop, end) - first)
        names = self.columns if columns is None else columns
        return [{name: row.get(name) for name in names} for row in rows]


class _Lines:
    """The lines of one file. Those of a compressed file are kept, as there is no way back to a place in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: list[bytes] | None = [] if path.suffix == ".gz" else None
        names: dict[str, None] = {}
        starts, ends = [], []
        place = 0
        for _, line, row in read_json_lines(path):
            start, place = place, place + len(line)
            if row is None:
                continue
            names.update(dict.fromkeys(row))
            if self._kept is not None:
                self._kept.append(line)
            starts.append(start)
            ends.append(place)
        self.columns = list(names)
        self._starts, self._ends = np.array(starts, np.int64), np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows `start` to `stop`, at least one."""
        if self._kept is not None:
            lines = self._kept[start:stop]
        else:
            first = int(self._starts[start])
            with explain_os_errors("read", self.path), self.path.open("rb") as stream:
                stream.seek(first)
                content = stream.read(int(self._ends[stop - 1]) - first)
            begins, ends = ((places[start:stop] - first).tolist() for places in (self._starts, self._ends))
            lines = [content[begin:end] for begin, end in zip(begins, ends, strict=True)]
        return [json.loads(decode(line, str(self.path))) for line in lines]


class _Array:
    """The objects of one file that is an array; they are kept in memory."""

    def __init__(self, path: Path) -> None:
        elements = parse_json(read_text(path), str(path))
        self._rows = [as_object(row, f"{path}, element {number}") for number, row in enumerate(elements, 1)]
        self.columns = list(dict.fromkeys(name for row in self._rows for name in row))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows `start` to `stop`."""
        return copy.deepcopy(self._rows[start:stop])  # nobody can change what the next reader gets


def open_json_lines(files: Sequence[Path]) -> JsonRows:
    """Rows of files with one object a line. Raises `UserError`, with the line, for anything else."""
    return JsonRows([_Lines(path) for path in files])


def open_json(files: Sequence[Path]) -> JsonRows:
    """Rows of files that are an array of objects, or JSON lines under that name, as `datasets` takes them."""
    return JsonRows([_Array(path) if _begins_array(path) else _lines_of_json(path) for path in files])


def _begins_array(path: Path) -> bool:
    first = next((line for line in read_lines(path) if line.strip()), b"")
    return decode(first, f"{path}, line 1").lstrip().startswith("[")


def _lines_of_json(path: Path) -> _Lines:
    try:
        return _Lines(path)
    except UserError as error:
        raise UserError(f"{path} is neither an array of objects nor one object a line: {error}") from error
