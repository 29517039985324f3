"""Rows in files: Parquet, Arrow, JSON lines, JSON, CSV and TSV, each read as what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import file_state
from t0train.core.hashing import content_hash, file_sha256

FileStates = tuple[tuple[int, int, int, int], ...]


class Reader(Protocol):
    """Rows in some file format."""

    columns: Sequence[str]
    num_rows: int

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Rows `start` to `stop`."""
        ...


def open_reader(files: Sequence[Path]) -> Reader:
    """A reader of the rows of `files`, which are of one format, one after the other.

    Raises:
        UserError: a file that cannot be read or is not what its name says.
    """
    return _open(tuple(files), file_states(files))


@lru_cache(maxsize=1)
def _open(files: tuple[Path, ...], states: FileStates) -> Reader:
    """Text has to be checked as a whole; the last split is kept, as its templates ask for it one after the other."""
    del states  # part of the key: files that were replaced are read again
    from t0train.tasks.arrow import open_arrow, open_parquet
    from t0train.tasks.csv_rows import open_csv
    from t0train.tasks.json_rows import open_json, open_json_lines

    for path in files:
        if path.stat().st_size == 0:
            raise UserError(f"cannot read {path}: the file is empty; get it again.")
    kinds: dict[str, Callable[[Sequence[Path]], Reader]] = {
        "parquet": open_parquet,
        "arrow": open_arrow,
        "jsonl": open_json_lines,
        "json": open_json,
        "csv": open_csv,
        "tsv": open_csv,
    }
    return kinds[files[0].name.removesuffix(".gz").rpartition(".")[2]](files)


def content_identity(files: Sequence[Path]) -> str:
    """Hash of the files' bytes; a file is read once per process and state."""
    return content_hash([_sha256(path, state) for path, state in zip(files, file_states(files), strict=True)])


def file_states(files: Sequence[Path]) -> FileStates:
    """What `file_state` says of each file; a state of its own for one that is gone."""
    states = []
    for path in files:
        try:
            with explain_os_errors("read", path):
                states.append(file_state(path))
        except UserError:  # reading it will say what is wrong
            states.append((-1, -1, -1, -1))
    return tuple(states)


@lru_cache(maxsize=4096)
def _sha256(path: Path, state: tuple[int, int, int, int]) -> str:
    del state  # part of the key: a file that was replaced is read again
    with explain_os_errors("read", path):
        return file_sha256(path)
