"""Parquet and Arrow: values as `datasets` shows them, bytes as text, and files that are damaged."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t0train.core.errors import UserError
from t0train.tasks import Dataset, Table, open_table
from t0train.tasks.arrow import open_parquet

MINE = Dataset("mine")


def write(folder: Path, table: pa.Table, name: str = "train.parquet", size: int = 3) -> Path:
    """Write a table in groups of `size` records; `.stream` in the name of an Arrow file chooses the stream format."""
    path = folder / "mine" / "default" / name.replace(".stream", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=size)
    else:
        new = pa.ipc.new_stream if ".stream" in name else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=size)
    return path


def opened(folder: Path) -> Table:
    return open_table(MINE, "train", str(folder))


FORMATS = pytest.mark.parametrize("name", ["train.parquet", "train.arrow", "train.stream.arrow"])


@FORMATS
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_bytes_are_text_at_any_depth(tmp_path: Path, kind: pa.DataType, name: str) -> None:
    texts = ["café", None, "", "≠ 1", "five"]
    raw = [None if text is None else text.encode() for text in texts]
    table = pa.table(
        {
            "plain": pa.array(raw, kind),
            "list": pa.array([[one, b"b"] for one in raw], pa.list_(kind)),
            "struct": pa.array([{"in": [{"er": one}], "n": 1} for one in raw]).cast(
                pa.struct([("in", pa.list_(pa.struct([("er", kind)]))), ("n", pa.int64())])
            ),
            "map": pa.array([[("key", one)] for one in raw], pa.map_(pa.string(), kind)),
            "fixed": pa.array([b"abc"] * 5, pa.binary(3)),
            "category": pa.array(raw, kind).dictionary_encode(),
        }
    )
    write(tmp_path, table, name)
    assert opened(tmp_path).records() == [
        {
            "plain": text,
            "list": [text, "b"],
            "struct": {"in": [{"er": text}], "n": 1},
            "map": [("key", text)],
            "fixed": "abc",
            "category": text,
        }
        for text in texts
    ]


@FORMATS
def test_bytes_that_are_not_utf_8_are_refused_where_they_are_read(tmp_path: Path, name: str) -> None:
    raw = [b"one", b"two", b"three", b"four", b"caf\xe9", b"six"]
    table = pa.table({"id": range(6), "raw": raw, "deep": [[{"x": one}] for one in raw]})
    write(tmp_path, table, name)
    found = opened(tmp_path)
    assert found.records(columns=["id"]) == [{"id": i} for i in range(6)]  # an image that nobody reads does not matter
    assert found.records(0, 4, ["raw"])[3] == {"raw": "four"}
    for column in ("raw", "deep"):
        with pytest.raises(UserError, match=rf"train\.\w+, column '{column}', record 5: the byte 0xE9 is not UTF-8"):
            found.records(columns=[column])


def test_text_columns_with_other_bytes_are_refused(tmp_path: Path) -> None:
    """Some writers mark any bytes as text; Arrow does not look at them when it reads Parquet."""
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\3\0\0\0\7\0\0\0"), pa.py_buffer(b"onecaf\xe9")]
    )
    write(tmp_path, pa.table({"text": bad}))
    with pytest.raises(UserError, match="column 'text', record 2: the byte 0xE9 is not UTF-8"):
        opened(tmp_path).records()
    write(tmp_path / "arrow", pa.table({"text": bad}), "train.arrow")
    with pytest.raises(UserError, match="Invalid UTF8"):
        opened(tmp_path / "arrow")


@FORMATS
def test_other_values_are_what_datasets_shows(tmp_path: Path, name: str) -> None:
    table = pa.table(
        {
            "price": pa.array([Decimal("12.50"), Decimal("0.10"), None], pa.decimal128(8, 2)),
            "day": pa.array([date(2021, 10, 15), None, date(1, 1, 1)]),
            "when": pa.array([datetime(2021, 10, 15, 7, 5), None, datetime(1999, 1, 1)], pa.timestamp("us")),
            "took": pa.array([timedelta(seconds=61), None, timedelta(0)], pa.duration("us")),
            "label": pa.array([0.0, 1.0, None]),
            "word": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    write(tmp_path, table, name)
    records = opened(tmp_path).records()
    assert [str(value) for value in records[0].values()] == [
        "12.50",
        "2021-10-15",
        "2021-10-15 07:05:00",
        "0:01:01",
        "0.0",
        "a",
    ]
    assert [type(record["label"]) for record in records] == [
        float,
        float,
        type(None),
    ]  # the file says float: no index of choices
    import datasets

    if name != "train.parquet":
        return
    path = str(tmp_path / "mine" / "default" / "train.parquet")
    oracle = datasets.load_dataset("parquet", data_files=[path], split="train", cache_dir=str(tmp_path / "cache"))
    assert records == list(oracle)


def test_a_value_that_python_cannot_hold_is_named(tmp_path: Path) -> None:
    days = pa.array([0, 1, 10_000_000], pa.int32()).cast(pa.date32())  # some year 29,000
    write(tmp_path, pa.table({"day": days}), size=2)
    with pytest.raises(UserError, match=r"train\.parquet, column 'day', record 3: a value of type date32"):
        opened(tmp_path).records()


def test_a_record_is_as_its_own_file_has_it(tmp_path: Path) -> None:
    """Whatever is read with it: a whole number in one file and a float in the next."""
    write(tmp_path, pa.table({"x": [1, 2]}), "train-00000-of-00002.parquet")
    write(tmp_path, pa.table({"x": [3.5], "y": ["only here"]}), "train-00001-of-00002.parquet")
    table = opened(tmp_path)
    assert [str(record["x"]) for record in table.records()] == ["1", "2", "3.5"]
    assert [str(table.records(i, i + 1)[0]["x"]) for i in range(3)] == ["1", "2", "3.5"]
    assert [record["y"] for record in table.records()] == [None, None, "only here"]


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]))
    with pytest.raises(UserError, match="two columns of the name 'x'"):
        opened(tmp_path)


CHECK = """
import sys
from t0train.core.errors import UserError
from t0train.tasks import Dataset, open_table
try:
    print(open_table(Dataset("mine"), "train", sys.argv[1]).records())
except UserError as error:
    print("refused:", error)
"""


def in_process(folder: Path) -> str:
    """What reading says, in a process of its own: a bad offset may kill it."""
    done = subprocess.run([sys.executable, "-c", CHECK, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    return done.stdout


def texts() -> pa.Table:
    return pa.table({"text": [f"some text {i}" for i in range(40)], "tags": [["a" * (i % 5), "b"] for i in range(40)]})


@pytest.mark.parametrize("name", ["train.arrow", "train.stream.arrow"])
@pytest.mark.parametrize(("column", "offset"), [("text", 2**31 - 1), ("text", -7), ("tags", 2**31 - 1), ("tags", -2)])
def test_offsets_beyond_the_buffer_are_refused(tmp_path: Path, name: str, column: str, offset: int) -> None:
    path = write(tmp_path, texts(), name, size=40)
    array = texts()[column].chunk(0)
    offsets = array.buffers()[1].to_pybytes()[: 41 * 4]
    content = path.read_bytes()
    place = content.index(offsets)
    forged = offsets[:80] + offset.to_bytes(4, "little", signed=True) + offsets[84:]
    path.write_bytes(content[:place] + forged + content[place + len(offsets) :])
    assert "refused: cannot read" in in_process(tmp_path)


@FORMATS
def test_files_cut_anywhere_are_refused(tmp_path: Path, name: str) -> None:
    """Between two batches, too, where an Arrow stream still looks whole."""
    path = write(tmp_path, texts(), name, size=10)
    content = path.read_bytes()
    for length in sorted({*range(9, len(content), 97), *range(len(content) - 24, len(content))}):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="cannot read"):
            opened(tmp_path).records()


@FORMATS
def test_headers_with_absurd_row_counts_are_refused(tmp_path: Path, name: str) -> None:
    """The count stands in the header as a number of its own; the text in it stays whole."""
    table = pa.table({"nothing": pa.nulls(2_000_003)})
    path = write(tmp_path, table, name, size=2_000_003)
    content = path.read_bytes()
    if name == "train.parquet":
        assert content.count(_zigzag(2_000_003)) >= 2
        path.write_bytes(content.replace(_zigzag(2_000_003), _zigzag(130_000_003)))
    else:
        path.write_bytes(content.replace((2_000_003).to_bytes(8, "little"), (2**60).to_bytes(8, "little")))
    assert path.read_bytes() != content
    assert "refused: cannot read" in in_process(tmp_path)


def _zigzag(number: int) -> bytes:
    """Thrift's compact form of an integer."""
    number, digits = number * 2, []
    while True:
        digits.append(number & 127 | (128 if number > 127 else 0))
        number >>= 7
        if not number:
            return bytes(digits)


def test_row_groups_that_unpack_to_absurdly_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine" / "default" / "train.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["0" * (8 << 20)]}), path, compression="zstd", use_dictionary=False)
    assert len(opened(tmp_path).records()[0]["text"]) == 8 << 20
    monkeypatch.setattr("t0train.tasks.arrow._FREE", 1 << 20)
    with pytest.raises(UserError, match=r"a row group unpacks to 8,\d\d\d,\d\d\d"):
        open_parquet([path])


def test_checksums_of_pages_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "default" / "train.parquet"
    path.parent.mkdir(parents=True)
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table({"text": ["the first", "the second"]}), path, **options)
    path.write_bytes(path.read_bytes().replace(b"the first", b"the worst"))
    with pytest.raises(UserError, match=r"cannot read .*damaged"):
        opened(tmp_path).records()
