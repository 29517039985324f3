"""Records in Parquet and Arrow files as Python values: what Hugging Face's `datasets` shows, bytes as UTF-8 text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from t0train.core.errors import UserError

_RECORDS_PER_BYTE = 10_000  # more is a damaged or forged header: even a column of one value takes some bytes
_MAX_RATIO = 200  # of what a row group unpacks to and its file
_FREE = 1 << 30  # bytes that may be unpacked whatever the ratio
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

Decoder = Callable[[Any], Any]


class ArrowReader:
    """Records of several tables, one after the other. A table is loaded on demand; the last one is kept.

    Each record is as its own file has it: a number that is whole in one file and a float in another stays so.
    """

    def __init__(self, tables: Sequence[_Part]) -> None:
        self._tables = tables
        self._ends = np.cumsum([table.num_records for table in tables], dtype=np.int64)
        self.num_records = int(self._ends[-1]) if tables else 0
        self.columns: Sequence[str] = _columns(tables)
        self._kept: tuple[tuple[int, tuple[str, ...]], pa.Table] | None = None

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Records `start` to `stop`."""
        wanted = self.columns if columns is None else list(columns)
        records: list[dict[str, Any]] = []
        while start < stop:
            number = int(np.searchsorted(self._ends, start, side="right"))
            first = int(self._ends[number - 1]) if number else 0
            end = min(stop, int(self._ends[number]))
            part, table = self._tables[number], self._load(number, wanted)
            if table.num_rows != part.num_records:
                raise UserError(
                    f"cannot read {part.path}: {table.num_rows:,} records where its header says {part.num_records:,}."
                    " It is damaged; get it again."
                )
            records += to_records(
                table.slice(start - first, end - start), wanted, part.path, part.first + start - first
            )
            start = end
        return records

    def _load(self, number: int, columns: Sequence[str]) -> pa.Table:
        key = (number, tuple(columns))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # never two of them in memory
            self._kept = (key, self._tables[number].load(columns))
        return self._kept[1]


class _Part:
    """A table that can be loaded: a whole file, or a row group of one.

    Attributes:
        path: of the file.
        first: number of the table's first record in the file.
        num_records: as the file's header says.
        schema: of the table.
    """

    def __init__(
        self, path: Path, first: int, num_records: int, schema: pa.Schema, load: Callable[..., pa.Table]
    ) -> None:
        self.path, self.first, self.num_records, self.schema = path, first, num_records, schema
        self._load = load

    def load(self, columns: Sequence[str]) -> pa.Table:
        """Those of the columns that it has."""
        with _explained(self.path):
            return self._load([name for name in columns if name in self.schema.names])


def open_parquet(files: Sequence[Path]) -> ArrowReader:
    """Records of Parquet files, decoded one row group at a time. Raises `UserError` for a file that is none."""
    parts = []
    for path in files:
        with _explained(path):
            file = pq.ParquetFile(path, page_checksum_verification=True)
            metadata = file.metadata
            schema = file.schema_arrow
            groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
            sizes = [group.num_rows for group in groups]
            unpacked = max((group.total_byte_size for group in groups), default=0)
        if unpacked > max(_FREE, _MAX_RATIO * path.stat().st_size):
            raise UserError(
                f"cannot read {path}: it has {path.stat().st_size:,} bytes, and a row group unpacks to {unpacked:,},"
                " which is not plausible for records of text."
            )
        _plausible(path, sum(sizes), min(sizes, default=0))
        for group, size in enumerate(sizes):
            parts.append(_Part(path, sum(sizes[:group]), size, schema, _group_loader(file, group)))
        if not sizes:
            parts.append(_Part(path, 0, 0, schema, schema.empty_table().select))
    return ArrowReader(parts)


def _group_loader(file: pq.ParquetFile, group: int) -> Callable[[list[str]], pa.Table]:
    def load(columns: list[str]) -> pa.Table:
        return file.read_row_group(group, columns=columns)

    return load


def open_arrow(files: Sequence[Path]) -> ArrowReader:
    """Records of Arrow files, streams or not, memory-mapped. Raises `UserError` for one that is none or damaged."""
    parts = []
    for path in files:
        table = read_arrow(path)
        _plausible(path, table.num_rows, 0)
        parts.append(_Part(path, 0, table.num_rows, table.schema, table.select))
    return ArrowReader(parts)


def read_arrow(path: Path) -> pa.Table:
    """The table in an Arrow file, memory-mapped and validated: a bad offset would be followed to foreign memory.

    Raises:
        UserError: a file of another format, damaged, or cut off.
    """
    with _explained(path):
        mapped = pa.memory_map(str(path))
        if mapped.read(6) == b"ARROW1":
            table = pa.ipc.open_file(mapped).read_all()
        else:
            mapped.seek(max(0, mapped.size() - len(_END_OF_STREAM)))
            if mapped.read() != _END_OF_STREAM:  # without it, a stream cut between two batches reads as a shorter one
                raise pa.ArrowInvalid("the mark of an Arrow stream's end is missing")
            mapped.seek(0)
            table = pa.ipc.open_stream(mapped).read_all()  # what `datasets` writes
        table.validate(full=True)
        return table


def _plausible(path: Path, records: int, least: int) -> None:
    size = path.stat().st_size
    if least < 0 or records > _RECORDS_PER_BYTE * size:
        raise UserError(
            f"cannot read {path}: its header says {records:,} records, but it has {size:,} bytes. It is damaged; get it"
            " again."
        )


def _columns(tables: Sequence[_Part]) -> list[str]:
    """What the tables of a split have in common; a column may be empty, and so without a type, in some of them."""
    schemas = {table.path: table.schema for table in tables}
    for path, schema in schemas.items():
        if twice := [name for name in schema.names if schema.names.count(name) > 1]:
            raise UserError(f"{path} has two columns of the name {twice[0]!r}; rename one.")
    try:
        return list(pa.unify_schemas(list(schemas.values()), promote_options="permissive").names)
    except pa.ArrowException as error:
        paths = list(schemas)
        raise UserError(f"the files {paths[0]} ... {paths[-1].name} differ in their columns: {error}.") from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"cannot read {path} as {path.suffix[1:]}: {reason}. It is damaged or of another format; get it again."
        ) from error


def to_records(table: pa.Table, columns: Sequence[str], origin: Path | str, first: int) -> list[dict[str, Any]]:
    """The records of a table as Python values; columns that it lacks are None.

    Args:
        table: the records.
        columns: names, in the order wanted.
        origin: file, for messages.
        first: number of the table's first record in it, for messages.

    Raises:
        UserError: a value that is no text in UTF-8 or that Python cannot hold; names file, column and record.
    """
    values: list[Sequence[Any]] = []
    for name in columns:
        if name not in table.column_names:
            values.append([None] * table.num_rows)
            continue
        column = table.column(name)
        decode = _decoder(column.type)
        try:
            cells = column.to_pylist()
            values.append([decode(cell) for cell in cells] if decode else cells)
        except (ValueError, OverflowError, RecursionError, NotImplementedError, pa.ArrowException) as error:
            raise _bad_value(column, decode, name, origin, first, error) from error
    return (
        [dict(zip(columns, record, strict=True)) for record in zip(*values, strict=True)]
        if columns
        else ([{} for _ in range(table.num_rows)])
    )


def _bad_value(
    column: pa.ChunkedArray, decode: Decoder | None, name: str, origin: Path | str, first: int, error: Exception
) -> UserError:
    """The first value of a column that cannot be had."""
    record = first
    for i in range(len(column)):
        try:
            value = column[i].as_py()
            if decode:
                decode(value)
        except Exception as one:  # the same that was raised for the whole column
            record, error = first + i, one
            break
    if isinstance(error, UnicodeDecodeError):
        reason = f"the byte 0x{error.object[error.start]:02X} is not UTF-8, and bytes are read as text"
    else:
        reason = f"a value of type {column.type} that cannot be read ({error})"
    return UserError(f"{origin}, column {name!r}, record {record + 1}: {reason}; convert the column, or leave it out.")


def _decoder(kind: pa.DataType) -> Decoder | None:
    """What makes text of the bytes in a value, at any depth; None where the type has none."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _text
    if types.is_binary_view(kind):
        return _text
    if types.is_map(kind):
        inner = _decoder(kind.key_type) or _same, _decoder(kind.item_type) or _same
        return None if inner == (_same, _same) else lambda value: _each(value, lambda pair: _pair(inner, pair))
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _decoder(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _decoder(kind.storage_type)
    if types.is_struct(kind):
        fields = {field.name: decode for field in kind if (decode := _decoder(field.type))}
        return (lambda value: _fields(value, fields)) if fields else None
    if hasattr(kind, "value_type"):  # lists of all sorts
        decode = _decoder(kind.value_type)
        return (lambda value: _each(value, decode)) if decode else None
    return None


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _same(value: Any) -> Any:
    return value


def _each(value: Sequence[Any] | None, decode: Decoder) -> list[Any] | None:
    return None if value is None else [decode(one) for one in value]


def _pair(decoders: tuple[Decoder, Decoder], pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return decoders[0](pair[0]), decoders[1](pair[1])


def _fields(value: dict[str, Any] | None, decoders: dict[str, Decoder]) -> dict[str, Any] | None:
    if value is None:
        return None
    return {name: decoders[name](one) if name in decoders else one for name, one in value.items()}
