"""Rows in files: Parquet, JSON lines, CSV and Arrow, each split in one file or in numbered shards of it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet as pq

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import file_state
from t0train.core.hashing import content_hash, file_sha256

FileStates = tuple[tuple[int, int, int, int], ...]

_FILE = re.compile(
    r"(?P<split>\w[\w.-]*?)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?\.(?P<format>parquet|jsonl|csv|arrow)"
)


class Reader(Protocol):
    """Rows in some file format."""

    columns: Sequence[str]
    num_rows: int

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        """Rows `start` to `stop`."""
        ...


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of every split in a folder, shards in order.

    Raises:
        UserError: a split in two formats, or with a shard missing.
    """
    found: dict[str, list[tuple[Path, re.Match[str]]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_file() and (match := _FILE.fullmatch(path.name)):
            found[match["split"]].append((path, match))
    for split, files in found.items():
        counts = {match["shards"] for _, match in files}
        if len(counts) > 1 or (None in counts and len(files) > 1):
            names = ", ".join(path.name for path, _ in files)
            raise UserError(f"{folder} holds the split {split!r} more than once ({names}); keep one of them.")
        shards = next(iter(counts))
        if shards is not None and len(files) != int(shards):
            raise UserError(
                f"{folder} holds {len(files)} of the {int(shards)} files of the split {split!r}; add the rest."
            )
    return {split: [path for path, _ in files] for split, files in found.items()}


def open_reader(files: Sequence[Path]) -> Reader:
    """A reader of the rows of `files`, one after the other.

    Raises:
        UserError: a file that cannot be read or is not what its name says.
    """
    if all(path.suffix == ".parquet" for path in files):
        return ParquetRows(files)
    return WholeTable(_whole_table(tuple(files), file_states(files)))


@lru_cache(maxsize=1)
def _whole_table(files: tuple[Path, ...], states: FileStates) -> pa.Table:
    """Text has to be parsed as a whole; the last split is kept, as its templates ask for it one after the other."""
    del states  # part of the key: files that were replaced are read again
    tables = [_READ[path.suffix](path) for path in files]
    _one_schema(files, [table.schema for table in tables])
    return _join(tables)


def _one_schema(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """What the shards of a split have in common; a column may be empty, and so without a type, in some of them."""
    try:
        return pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"the files {files[0]} ... {files[-1].name} differ in their columns: {error}.") from error


def _join(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive")


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


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot read {path} as {path.suffix[1:]}: {reason}. It is damaged or of another format; get it again."
        ) from error


class WholeTable:
    """Rows of a table in memory (or memory-mapped)."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.columns: Sequence[str] = table.column_names
        self.num_rows: int = table.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        """Rows `start` to `stop`."""
        rows = self._table.slice(start, stop - start)
        return rows if columns is None else rows.select(list(columns))


class ParquetRows:
    """Rows of Parquet files, decoded one row group at a time; the last one is kept, for reading in sequence."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files: list[tuple[Path, pq.ParquetFile]] = []
        self._groups: list[tuple[int, int]] = []  # (file, row group in it)
        sizes: list[int] = []
        for number, path in enumerate(files):
            with _explained(path):
                file = pq.ParquetFile(path)
            self._files.append((path, file))
            metadata = file.metadata
            self._groups += [(number, group) for group in range(metadata.num_row_groups)]
            sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.num_rows = int(self._ends[-1]) if sizes else 0
        self._schema = _one_schema(files, [file.schema_arrow for _, file in self._files])
        self.columns: Sequence[str] = self._schema.names
        self._kept: tuple[tuple[int, tuple[str, ...] | None], pa.Table] | None = None

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        """Rows `start` to `stop`."""
        if start >= stop:
            return self._schema.empty_table()
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop - 1, side="right"))
        wanted = None if columns is None else tuple(columns)
        groups = _join([self._group(index, wanted) for index in range(first, last + 1)])
        offset = int(self._ends[first - 1]) if first else 0
        return groups.slice(start - offset, stop - start)

    def _group(self, index: int, columns: tuple[str, ...] | None) -> pa.Table:
        if self._kept is None or self._kept[0] != (index, columns):
            number, group = self._groups[index]
            path, file = self._files[number]
            with _explained(path):
                rows = file.read_row_group(group, columns=None if columns is None else list(columns))
            self._kept = ((index, columns), rows)
        return self._kept[1]


def _read_arrow(path: Path) -> pa.Table:
    with _explained(path):
        mapped = pa.memory_map(str(path))
        try:
            return pa.ipc.open_stream(mapped).read_all()  # what `datasets` writes
        except pa.ArrowInvalid:
            return pa.ipc.open_file(mapped).read_all()


def _read_csv(path: Path) -> pa.Table:
    """Columns of numbers, or of true and false, become that; all else stays text as it is, dates and "NA" included."""
    read = pa.csv.ReadOptions(block_size=_one_block(path))
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    convert = pa.csv.ConvertOptions(null_values=[""], strings_can_be_null=False)
    with _explained(path):
        table = pa.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
        convert.column_types = {field.name: _without_times(field.type) for field in table.schema}
        return pa.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _read_jsonl(path: Path) -> pa.Table:
    """One JSON object a line. Dates stay text (Arrow would turn them into timestamps)."""
    read = pa.json.ReadOptions(block_size=_one_block(path))
    with _explained(path):
        table = pa.json.read_json(path, read_options=read)
        types = [pa.field(field.name, _without_times(field.type)) for field in table.schema]
        if pa.schema(types).equals(table.schema):
            return table
        return pa.json.read_json(path, read, pa.json.ParseOptions(explicit_schema=pa.schema(types)))


def _one_block(path: Path) -> int:
    """The whole file as one block, so that a column's type is inferred from all its rows (Arrow's limit: 2 GiB)."""
    return min(max(path.stat().st_size, 1 << 20), 2**31 - 1)


def _without_times(kind: pa.DataType) -> pa.DataType:
    """The same type with text in place of dates and times, at any depth."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _without_times(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    return pa.string() if pa.types.is_temporal(kind) else kind


_READ: dict[str, Callable[[Path], Any]] = {".arrow": _read_arrow, ".csv": _read_csv, ".jsonl": _read_jsonl}
