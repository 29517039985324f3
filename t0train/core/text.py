"""Text files: UTF-8, with or without a byte order mark, read line by line within limits; CSV and JSON on top of it.

And text of unknown origin made safe to show, on terminals, in figures and in Markdown pages.

Every message names the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from t0train.core.errors import UserError

MAX_LINE = 64 << 20  # bytes; a row beyond that is a mistake, and reading it would take all memory
MAX_DEPTH = 100  # lists and objects within each other
_MAX_RATIO = 200  # of a compressed file; text compresses to a third or a tenth
_MAX_UNPACKED = 8 << 30
_FREE = 64 << 20  # bytes that may be unpacked whatever the ratio


def decode(content: bytes, where: str) -> str:
    """UTF-8 as text, without a byte order mark at the start.

    Raises:
        UserError: other bytes; `where` (a file, or a file and a line) begins the message.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{where}: the text is UTF-16, expected UTF-8; save it again as UTF-8.")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start)
        raise UserError(f"{where}{f', line {line + 1}' if line else ''}: {_not_utf8(content[error.start])}") from error


def _not_utf8(byte: int) -> str:
    return (
        f"the byte 0x{byte:02X} is not UTF-8; convert the file, e.g. by"
        " `iconv -f WINDOWS-1252 -t UTF-8` if it comes from Windows or Excel."
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"cannot read {path}: {error}. It is damaged or no gzip file; get it again.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error


def _open(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked if its name ends in .gz."""
    if path.suffix != ".gz":
        return path.open("rb")
    _refuse_bombs(path)
    return gzip.open(path)  # type: ignore[return-value]


def _refuse_bombs(path: Path) -> None:
    """Unpack once in large blocks, which is fast, before anything is made of the lines."""
    packed, size = path.stat().st_size, 0
    limit = max(_FREE, min(_MAX_UNPACKED, _MAX_RATIO * packed))
    with gzip.open(path) as stream:
        while block := stream.read(1 << 24):
            size += len(block)
            if size > limit:
                raise UserError(
                    f"{path} has {packed:,} bytes and unpacks to more than {limit:,}, which is not plausible for text;"
                    " unpack it yourself if you trust it."
                )


def read_lines(path: Path) -> Iterator[bytes]:
    r"""The lines of a file (unpacked if its name ends in .gz) with their `\n`.

    Raises:
        UserError: unreadable, longer lines than `MAX_LINE`, or a compressed file that grows beyond all measure.
    """
    with _explained(path), _open(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise UserError(f"{path}, line {number}: longer than {MAX_LINE >> 20} MiB; write one row a line.")
            yield line


def read_text(path: Path) -> str:
    """The whole text of a file (unpacked if its name ends in .gz). Raises `UserError` if it is unreadable."""
    with _explained(path), _open(path) as stream:
        content = stream.read()
    return decode(content, str(path))


def read_json(path: Path) -> Any:
    """The JSON document in a file. Raises `UserError` as `parse_json` and `read_text`."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str, what: str = "JSON") -> Any:
    """A JSON document, read strictly: no NaN or infinity, no key twice in an object, no absurd nesting.

    Raises:
        UserError: anything else; `where` begins the message.
    """
    try:
        value = _STRICT.decode(text)
        if "\\u" in text:  # half of a surrogate pair can be written, but is no character
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise RecursionError
        return value
    except RecursionError as error:
        raise UserError(f"{where}: lists and objects are nested more than {MAX_DEPTH} deep.") from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: \\u{ord(error.object[error.start]):04x} is half of a surrogate pair, which is no character."
        ) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        hint = ""
        if not text.strip():
            hint = " The file is empty."
        elif error.pos >= len(text.rstrip()):
            hint = " It seems to be cut off there."
        elif error.msg == "Extra data":
            hint = " One value is expected, and more text follows it."
        raise UserError(f"{where}: not {what}: {error.msg}, {place}.{hint}") from error
    except ValueError as error:
        raise UserError(f"{where}: not {what}: {error}.") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Number and bytes of every line of a file of JSON lines, and its object; None where the line is blank.

    Raises:
        UserError: a line that is no JSON object, or what `parse_json` and `read_lines` refuse; with the line.
    """
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}, line {number}"
        text = decode(line, where).strip()
        if text.startswith("["):
            raise UserError(
                f"{where}: an array, but one object a line is expected. A file that is one array of objects is read as"
                " rows if its name ends in .json."
            )
        yield number, line, as_object(parse_json(text, where, "one JSON object"), where) if text else None


def as_object(value: Any, where: str) -> dict[str, Any]:
    """A parsed JSON value, if it is an object. Raises `UserError`."""
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
        raise UserError(f"{where}: {kind}, expected an object: names of columns and their values.")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits} is beyond the range of a float")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value; write null, or leave the key out")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def read_csv(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file in UTF-8, each with the line it ends on; lines without any text are left out.

    Raises:
        UserError: a quote that is not closed or is followed by text, a byte that is not UTF-8 (line and column named),
            an unreadable file.
    """
    csv.field_size_limit(MAX_LINE)
    bad: dict[int, int] = {}  # line -> first byte that is not UTF-8
    records = csv.reader(_csv_lines(path, bad), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 0
    while True:
        try:
            cells = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(_explain_csv(path, error, start + 1, records.line_num)) from error
        if bad:
            column = _bad_column(cells, header)
            line, byte = next(iter(bad.items()))
            raise UserError(f"{path}, line {line}{column}: {_not_utf8(byte)}")
        header = header or cells
        start = records.line_num
        if cells:
            yield start, cells


def _csv_lines(path: Path, bad: dict[int, int]) -> Iterator[str]:
    r"""Lines that end in \n, \r\n or, as old Excel writes them, \r."""
    number = 0
    for raw in read_lines(path):
        if number == 0 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            decode(raw, str(path))
        text = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
        try:
            decoded = text.decode()
        except UnicodeDecodeError as error:
            decoded = text.decode("utf-8", "surrogateescape")
            bad[number + 1 + text[: error.start].replace(b"\r\n", b"\n").count(b"\r")] = text[error.start]
        for line in io.StringIO(decoded, newline="") if "\r" in decoded else (decoded,):
            number += 1
            yield line


def _bad_column(cells: list[str], header: list[str] | None) -> str:
    number = next((i for i, cell in enumerate(cells) if any("\udc80" <= char <= "\udcff" for char in cell)), None)
    if number is None or header is None or number >= len(header):
        return ""
    return f", column {header[number]!r}"


def _explain_csv(path: Path, error: csv.Error, start: int, line: int) -> str:
    said = str(error)
    if "unexpected end of data" in said or "field limit" in said:
        return f"{path}, line {start}: a quote is opened in this record and never closed."
    if "expected after" in said:
        return f"{path}, line {line}: text follows a closing quote; inside a quoted cell a quote is written twice."
    return f"{path}, line {line}: not CSV: {said}."


# Control characters but line ends and tabs, marks that change the direction of what follows, and what UTF-8 or XML
# cannot hold.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text with a replacement character for all that could steer a terminal or cannot be written to a file."""
    return _UNSAFE.sub("\ufffd", text)


def shortened(text: str, most: int) -> str:
    """At most `most` characters on one line, printable; a long text keeps its ends."""
    line = " ".join(printable(text).split())
    head = (most - 3) // 2
    return line if len(line) <= most else f"{line[:head]}...{line[len(line) - (most - 3 - head) :]}"


_CODE = re.compile(r"`([\w ./=:{},*+-]+)`")  # commands and names of keys, as our own sentences have them
_SPECIAL = re.compile(r"[\\*|`$~]|(?<!\w)_|_(?!\w)|\](?=[(\[])")  # `_` means nothing within words; links last
_ADDRESS = re.compile(r":(?=//)|(?<=\bwww)\.|@", re.IGNORECASE)  # GitHub makes links of bare addresses
_BLOCK = re.compile(r"(#{1,6}|[-+]+|=+|\d{1,9}[.)])(?=\s|$)|>|\[")  # headings, lists, quotations, link definitions


def escape_markdown(text: str, starts_block: bool = False, in_brackets: bool = False) -> str:
    """One line that Markdown shows unchanged, also in the cell of a table; `code` of plain words stays code.

    Args:
        text: any.
        starts_block: it is at the beginning of a line, where `#`, `1.` and the like begin headings and lists.
        in_brackets: it is between the brackets of an image or link, whose end a bracket within it could be.
    """
    parts = _CODE.split(" ".join(printable(text).split()))
    parts[::2] = (_escape_inline(part, in_brackets) for part in parts[::2])
    parts[1::2] = (f"`{part}`" for part in parts[1::2])
    line = "".join(parts)
    if starts_block and (found := _BLOCK.match(line)):
        last = found.end() - 1
        return f"{line[:last]}\\{line[last:]}"
    return line


def _escape_inline(text: str, in_brackets: bool) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    if in_brackets:
        text = text.replace("[", "&#91;").replace("]", "&#93;")
    return _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", _SPECIAL.sub(r"\\\g<0>", text))
