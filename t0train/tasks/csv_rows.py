"""Rows in CSV and TSV files. A column is numbers or booleans only if every cell of it prints back as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from t0train.core.errors import UserError
from t0train.core.text import read_csv

_CHUNK = 20_000  # rows that are held as Python lists while a file is read
_INTEGER = "^(0|-?[1-9][0-9]*)$"
_FLOAT = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-][0-9]+)?$"


class CsvRows:
    """Rows of text files, kept as a table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.columns: Sequence[str] = table.column_names
        self.num_rows: int = table.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Rows `start` to `stop`."""
        rows = self._table.slice(start, stop - start)
        found: list[dict[str, Any]] = (rows if columns is None else rows.select(list(columns))).to_pylist()
        return found


def open_csv(files: Sequence[Path]) -> CsvRows:
    """Rows of CSV or TSV files with a header; types come from all cells of all files.

    Raises:
        UserError: no header, a row of another length, a column name twice, files that differ in their columns, or what
            `read_csv` refuses; with the line.
    """
    tables = [_read(path) for path in files]
    for path, table in zip(files, tables, strict=True):
        if table.column_names != tables[0].column_names:
            raise UserError(
                f"{path} has the columns {', '.join(table.column_names)}, but {files[0]} has"
                f" {', '.join(tables[0].column_names)}; the files of one split need the same header."
            )
    table = pa.concat_tables(tables)
    return CsvRows(pa.table({name: _typed(table.column(name)) for name in table.column_names}))


def _read(path: Path) -> pa.Table:
    """The cells of one file as text."""
    tab = path.name.removesuffix(".gz").endswith(".tsv")
    records = read_csv(path, "\t" if tab else ",")
    try:
        _, cells = next(records)
    except StopIteration:
        raise UserError(f"cannot read {path}: no line has any text; the first one must name the columns.") from None
    header = _header(cells, path)
    schema = pa.schema([(name, pa.large_string()) for name in header])
    chunks = [
        pa.table([pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)], schema=schema)
        for rows in _chunks(records, len(header), path)
    ]
    return pa.concat_tables(chunks) if chunks else schema.empty_table()


def _chunks(records: Iterator[tuple[int, list[str]]], width: int, path: Path) -> Iterator[list[list[str]]]:
    while chunk := list(islice(records, _CHUNK)):
        for line, cells in chunk:
            if len(cells) != width:
                raise UserError(
                    f"{path}, line {line}: {len(cells)} cells, but the header names {width} columns; quote cells that"
                    " contain the separator or line ends."
                )
        yield [cells for _, cells in chunk]


def _header(cells: list[str], path: Path) -> list[str]:
    """Names of the columns; one without a name, as pandas writes for its index, is `Unnamed: 0`, as pandas reads it."""
    if any("\0" in cell for cell in cells):
        raise UserError(f"cannot read {path} as text: its first line holds a null byte. It is of another format.")
    if len(cells) == 1:
        for separator, name in ((",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in cells[0]:
                raise UserError(
                    f"{path} seems to be separated by {name}: its first line is {cells[0][:200]!r}. Commas are expected"
                    " in .csv files and tabs in .tsv files; rename or convert it."
                )
    if not any(cell.strip() for cell in cells):
        raise UserError(f"{path}: its first line names no column; put a header there.")
    names = [cell if cell.strip() else f"Unnamed: {number}" for number, cell in enumerate(cells)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: the header names the column {name!r} twice; rename one.")
    return names


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers, floats or booleans if that changes no cell when it is printed, else the text."""
    if len(column) == 0:
        return column
    if pc.all(pc.match_substring_regex(column, _INTEGER)).as_py():
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column  # beyond 64 bits
    if pc.all(pc.match_substring_regex(column, _FLOAT)).as_py():
        numbers = column.cast(pa.float64())
        printed = all(
            repr(number) == cell for number, cell in zip(numbers.to_pylist(), column.to_pylist(), strict=True)
        )
        return numbers if printed else column
    if pc.all(pc.is_in(column, pa.array(["True", "False"], pa.large_string()))).as_py():
        return pc.equal(column, "True")
    return column
