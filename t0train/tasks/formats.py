"""Records in files: Parquet, Arrow, JSON lines, JSON, CSV and TSV, each read as what it is.

Parquet and Arrow are read by `t0train.tasks.arrow`. A column of a CSV file is numbers or booleans only if every cell of
it prints back unchanged. In JSON every record is its own object: a key that it lacks is not there, not null.
"""

from __future__ import annotations

import copy
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import file_state
from t0train.core.hashing import content_hash, file_sha256
from t0train.core.text import as_object, decode, parse_json, read_csv, read_json_lines, read_lines, read_text

if TYPE_CHECKING:
    import pyarrow as pa

FileStates = tuple[tuple[int, int, int, int], ...]


class Reader(Protocol):
    """Records in some file format."""

    columns: Sequence[str]
    num_records: int

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Records `start` to `stop`."""
        ...


def open_reader(files: Sequence[Path]) -> Reader:
    """A reader of the records of `files`, which are of one format, one after the other.

    Raises:
        UserError: a file that cannot be read or is not what its name says.
    """
    return _open(tuple(files), file_states(files))


@lru_cache(maxsize=1)
def _open(files: tuple[Path, ...], states: FileStates) -> Reader:
    """Text has to be checked as a whole; the last split is kept, as its templates ask for it one after the other."""
    del states  # part of the key: files that were replaced are read again
    from t0train.tasks.arrow import open_arrow, open_parquet

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


_CHUNK = 20_000  # records that are held as Python lists while a file is read
_INTEGER = "^(0|-?[1-9][0-9]*)$"
_FLOAT = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-][0-9]+)?$"


class CsvReader:
    """Records of text files, kept as a table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.columns: Sequence[str] = table.column_names
        self.num_records: int = table.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Records `start` to `stop`."""
        records = self._table.slice(start, stop - start)
        found: list[dict[str, Any]] = (records if columns is None else records.select(list(columns))).to_pylist()
        return found


def open_csv(files: Sequence[Path]) -> CsvReader:
    """Records of CSV or TSV files with a header; types come from all cells of all files.

    Raises:
        UserError: no header, a record of another length, a column name twice, files that differ in their columns, or
            what `read_csv` refuses; with the line.
    """
    import pyarrow as pa

    tables = [_read(path) for path in files]
    for path, table in zip(files, tables, strict=True):
        if table.column_names != tables[0].column_names:
            raise UserError(
                f"{path} has the columns {', '.join(table.column_names)}, but {files[0]} has"
                f" {', '.join(tables[0].column_names)}; the files of one split need the same header."
            )
    table = pa.concat_tables(tables)
    return CsvReader(pa.table({name: _typed(table.column(name)) for name in table.column_names}))


def _read(path: Path) -> pa.Table:
    """The cells of one file as text."""
    import pyarrow as pa

    tab = path.name.removesuffix(".gz").endswith(".tsv")
    records = read_csv(path, "\t" if tab else ",")
    try:
        _, cells = next(records)
    except StopIteration:
        raise UserError(f"cannot read {path}: no line has any text; the first one must name the columns.") from None
    header = _header(cells, path)
    schema = pa.schema([(name, pa.large_string()) for name in header])
    chunks = [
        pa.table([pa.array(column, pa.large_string()) for column in zip(*chunk, strict=True)], schema=schema)
        for chunk in _chunks(records, len(header), path)
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
    import pyarrow as pa
    import pyarrow.compute as pc

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


class JsonReader:
    """Records of JSON lines, all checked when opened and parsed again on demand: only their places are kept."""

    def __init__(self, files: Sequence[_Lines | _Array]) -> None:
        self._files = files
        self._ends = list(accumulate(map(len, files)))
        self.num_records = self._ends[-1]
        self.columns: Sequence[str] = list(dict.fromkeys(name for file in files for name in file.columns))

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Records `start` to `stop`; a column that a record lacks is None."""
        records: list[dict[str, Any]] = []
        for file, end in zip(self._files, self._ends, strict=True):
            first = end - len(file)
            if max(start, first) < min(stop, end):
                records += file.read(max(start, first) - first, min(stop, end) - first)
        names = self.columns if columns is None else columns
        return [{name: record.get(name) for name in names} for record in records]


class _Lines:
    """The lines of one file. Those of a compressed file are kept, as there is no way back to a place in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: list[bytes] | None = [] if path.suffix == ".gz" else None
        names: dict[str, None] = {}
        self._starts, self._ends = array("q"), array("q")  # bytes
        place = 0
        for _, line, record in read_json_lines(path):
            start, place = place, place + len(line)
            if record is None:
                continue
            names.update(dict.fromkeys(record))
            if self._kept is not None:
                self._kept.append(line)
            self._starts.append(start)
            self._ends.append(place)
        self.columns = list(names)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Records `start` to `stop`, at least one."""
        if self._kept is not None:
            lines = self._kept[start:stop]
        else:
            first = self._starts[start]
            with explain_os_errors("read", self.path), self.path.open("rb") as stream:
                stream.seek(first)
                content = stream.read(self._ends[stop - 1] - first)
            places = zip(self._starts[start:stop], self._ends[start:stop], strict=True)
            lines = [content[begin - first : end - first] for begin, end in places]
        return [json.loads(decode(line, str(self.path))) for line in lines]


class _Array:
    """The objects of one file that is an array; they are kept in memory."""

    def __init__(self, path: Path) -> None:
        elements = parse_json(read_text(path), str(path))
        self._records = [as_object(record, f"{path}, element {number}") for number, record in enumerate(elements, 1)]
        self.columns = list(dict.fromkeys(name for record in self._records for name in record))

    def __len__(self) -> int:
        return len(self._records)

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Records `start` to `stop`."""
        return copy.deepcopy(self._records[start:stop])  # nobody can change what the next reader gets


def open_json_lines(files: Sequence[Path]) -> JsonReader:
    """Records of files with one object a line. Raises `UserError`, with the line, for anything else."""
    return JsonReader([_Lines(path) for path in files])


def open_json(files: Sequence[Path]) -> JsonReader:
    """Records of files that are an array of objects, or JSON lines under that name, as `datasets` takes them."""
    return JsonReader([_Array(path) if _begins_array(path) else _lines_of_json(path) for path in files])


def _begins_array(path: Path) -> bool:
    first = next((line for line in read_lines(path) if line.strip()), b"")
    return decode(first, f"{path}, line 1").lstrip().startswith("[")


def _lines_of_json(path: Path) -> _Lines:
    try:
        return _Lines(path)
    except UserError as error:
        raise UserError(f"{path} is neither an array of objects nor one object a line: {error}") from error
