"""CSV, TSV, JSON lines and JSON arrays: values as they stand, errors by line and column. Oracles: `csv` and `json`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t0train.core.errors import UserError
from t0train.tasks import Dataset, Table, open_table

MINE = Dataset("mine")


def read(folder: Path, content: str | bytes, name: str = "train.csv") -> list[dict[str, Any]]:
    path = folder / "mine" / "default" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_table(MINE, "train", str(folder)).records()


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["0", "1", "-12"], [0, 1, -12]),
        (["9223372036854775807", "0"], [9223372036854775807, 0]),
        (["9223372036854775808", "0"], ["9223372036854775808", "0"]),
        (["0.5", "-3.0", "1e-07", "1e+16"], [0.5, -3.0, 1e-07, 1e16]),
        (["True", "False"], [True, False]),
        (["02134", "01970"], ["02134", "01970"]),
        (["1.10", "1.20"], ["1.10", "1.20"]),
        (["true", "false"], ["true", "false"]),
        (["TRUE", "FALSE"], ["TRUE", "FALSE"]),
        (["1", ""], ["1", ""]),
        (["0.5", ""], ["0.5", ""]),
        (["True", ""], ["True", ""]),
        (["1", "0.5"], ["1", "0.5"]),
        (["1", "NA"], ["1", "NA"]),
        (["1e5", "2e5"], ["1e5", "2e5"]),
        (["+1", "2"], ["+1", "2"]),
        (["-0", "2"], ["-0", "2"]),
        (["0x1", "0x2"], ["0x1", "0x2"]),
        (["inf", "nan"], ["inf", "nan"]),
        ([".5", "0.5"], [".5", "0.5"]),
        (["0.1000000000000000055511151231257827", "0.5"], ["0.1000000000000000055511151231257827", "0.5"]),
        ([" 1", "2"], [" 1", "2"]),
        (["1,234", "2,000"], ["1,234", "2,000"]),
        (["2021-10-15", "2022-01-01"], ["2021-10-15", "2022-01-01"]),
        (["12:30", "null"], ["12:30", "null"]),
        (["", ""], ["", ""]),
    ],
)
def test_a_column_is_typed_only_if_every_cell_prints_back(tmp_path: Path, cells: list[str], values: list[Any]) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([["text", "cell"], *(["x", cell] for cell in cells)])
    found = [record["cell"] for record in read(tmp_path, stream.getvalue())]
    assert [(type(cell), cell) for cell in found] == [(type(value), value) for value in values]
    assert [str(cell) for cell in found] == cells


@settings(max_examples=60, deadline=None)
@given(
    columns=st.lists(
        st.lists(
            st.one_of(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
                st.integers(-5, 2**70).map(str),
                st.floats().map(repr),
                st.sampled_from(["True", "False", "", "1", "0"]),
            ),
            min_size=4,
            max_size=4,
        ),
        min_size=2,
        max_size=3,
    )
)
def test_every_cell_prints_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, columns: list[list[str]]
) -> None:
    stream = io.StringIO(newline="")
    names = [f"c{number}" for number in range(len(columns))]
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([names, *zip(*columns, strict=True)])
    records = read(tmp_path_factory.mktemp("cells"), stream.getvalue())
    assert [[str(record[name]) for record in records] for name in names] == columns


def test_types_come_from_all_records_and_all_files(tmp_path: Path) -> None:
    records = read(tmp_path, "answer\n" + "1\n" * 50_000 + "both\n")
    assert (len(records), records[0], records[-1]) == (50_001, {"answer": "1"}, {"answer": "both"})
    shards = tmp_path / "shards" / "mine" / "default"
    shards.mkdir(parents=True)
    (shards / "train-00000-of-00002.csv").write_text("zip\n12345\n")
    (shards / "train-00001-of-00002.csv").write_text("zip\n02134\n")
    assert open_table(MINE, "train", str(tmp_path / "shards")).records() == [{"zip": "12345"}, {"zip": "02134"}]
    (shards / "train-00001-of-00002.csv").write_text("zap\n02134\n")
    with pytest.raises(UserError, match=r"00001-of-00002\.csv has the columns zap, but .* has zip"):
        open_table(MINE, "train", str(tmp_path / "shards"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_marks_quotes_and_blank_lines(tmp_path: Path, end: str, mark: str) -> None:
    lines = ['"text",label', '"a ""b"", c",0', "", '5" disk,1', ""]
    assert read(tmp_path, mark + end.join(lines)) == [{"text": 'a "b", c', "label": 0}, {"text": '5" disk', "label": 1}]
    assert read(tmp_path, f'{mark}text,label{end}"two{end}lines",1{end}')[0]["text"] == f"two{end}lines"


def test_tsv_and_compressed_files(tmp_path: Path) -> None:
    records = [{"text": "a, b", "label": 1}]
    assert read(tmp_path / "tsv", "text\tlabel\na, b\t1\n", "train.tsv") == records
    assert read(tmp_path / "gz", gzip.compress(b'text,label\n"a, b",1\n'), "train.csv.gz") == records
    assert read(tmp_path / "both", gzip.compress(b"\xef\xbb\xbftext\tlabel\na, b\t1\n"), "train.tsv.gz") == records


def test_the_index_that_pandas_writes_has_pandas_name_for_it(tmp_path: Path) -> None:
    assert read(tmp_path, ",text\n0,a\n1,b\n")[1] == {"Unnamed: 0": 1, "text": "b"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"text,label\na,0\nb,1,x\n", "train.csv, line 3: 3 cells, but the header names 2 columns"),
        (b"text,label\na,0\nb\n", "line 3: 1 cells"),
        (b'text,label\n"a\n\nb",0\nb\n', "line 5: 1 cells"),
        (b'text,label\na,0\n"b,1\nc,0\n', "line 3: a quote is opened"),
        (b'text,label\na,0\n"b" c,1\n', "line 3: text follows a closing quote"),
        (b"text,label,text\na,0,b\n", "'text' twice"),
        (b"text;label\na, b;0\n", "separated by semicolons"),
        (b"text\tlabel\na, b\t0\n", "separated by tabs"),
        (b",,\na,b,c\n", "names no column"),
        (b"\n\n", "no line has any text"),
        (b"text,label\nplain,0\ncaf\xe9,1\n", "line 3, column 'text': the byte 0xE9 is not UTF-8"),
        (b'text,label\n"plain\nword",0\nx,\xff1\n', "line 4, column 'label': the byte 0xFF"),
        (b"te\xe9xt,label\na,0\n", "line 1: the byte 0xE9"),
        ("text,label\na,0\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_errors_name_line_and_column(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert complaint in str(caught.value)
    assert "train.csv" in str(caught.value)


def test_tabs_are_expected_in_tsv(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="separated by commas"):
        read(tmp_path, "text,label\na,0\n", "train.tsv")


def test_bombs_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    bomb = gzip.compress(b"text\n" + b"0\n" * (1 << 26))
    assert len(bomb) < 1 << 18
    begin = time.monotonic()
    with pytest.raises(UserError, match="unpacks to more than"):
        read(tmp_path, bomb, "train.csv.gz")
    assert time.monotonic() - begin < 10  # a second on an idle machine
    with pytest.raises(UserError, match=r"cannot read .*damaged"):
        read(tmp_path / "cut", gzip.compress(b"text\nword\n" * 99)[:-9], "train.csv.gz")


RECORDS: list[dict[str, Any]] = [
    {"q": "first", "options": {"A": "x", "B": "y"}, "tags": [{"k": None}, {}], "n": 10**30, "mixed": 1},
    {"q": "zweite ≠", "options": {"A": "x", "C": None, "D": "w"}, "tags": [], "n": -0.5, "mixed": "one"},
    {"q": None, "options": {}, "tags": [], "n": None, "mixed": [True]},
]


def opened(folder: Path, content: str | bytes, name: str = "train.jsonl") -> Table:
    path = folder / "mine" / "default" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_table(MINE, "train", str(folder))


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.jsonl", lines(RECORDS)),
        ("train.jsonl", "\n" + lines(RECORDS).replace("\n", "\r\n\r\n").rstrip()),
        ("train.json", lines(RECORDS)),
        ("train.json", json.dumps(RECORDS, indent=2)),
    ],
)
def test_records_are_the_objects(tmp_path: Path, name: str, content: str, mark: str) -> None:
    """Keys of inner objects are those of each record; text beyond 64 bits and mixed columns stay."""
    table = opened(tmp_path, mark + content, name)
    assert table.records() == RECORDS
    assert [list(record["options"]) for record in table.records()] == [["A", "B"], ["A", "C", "D"], []]
    assert table.records(1, 3, ["mixed", "q"]) == [{"mixed": "one", "q": "zweite ≠"}, {"mixed": [True], "q": None}]
    (tmp_path / "gz").mkdir()
    assert opened(tmp_path / "gz", gzip.compress((mark + content).encode()), name + ".gz").records() == RECORDS


def test_a_column_that_a_record_lacks_is_null(tmp_path: Path) -> None:
    table = opened(tmp_path, '{"a": 1}\n{"b": 2, "a": 3}\n')
    assert (table.columns, table.records()) == (["a", "b"], [{"a": 1, "b": None}, {"a": 3, "b": 2}])


def test_ranges_over_shards(tmp_path: Path) -> None:
    records = [{"i": i, "text": "ä" * (i % 7)} for i in range(30)]
    folder = tmp_path / "mine" / "default"
    folder.mkdir(parents=True)
    for number, (first, last) in enumerate([(0, 4), (4, 5), (5, 30)]):
        (folder / f"train-0000{number}-of-00003.jsonl").write_text(lines(records[first:last]), encoding="utf-8")
    table = open_table(MINE, "train[1:29]", str(tmp_path))
    for start in range(28):
        for stop in range(start, 29):
            assert table.records(start, stop) == records[1:29][start:stop]


def test_nobody_can_change_the_records_of_others(tmp_path: Path) -> None:
    table = opened(tmp_path, json.dumps(RECORDS), "train.json")
    table.records()[0]["options"].clear()
    assert table.records() == RECORDS


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"a": 1}\n{"a": 2},\n{"a": 3}\n', "line 2: not one JSON object: Extra data, column 9"),
        ('{"a": 1}\n{"a": 2}{"a": 3}\n', "line 2: not one JSON object: Extra data, column 9"),
        ('{"a": 1}\n\n{"a": 2, "b\n', "line 3: not one JSON object"),
        ('{"a": 1}\n{"a": ', "line 2: not one JSON object: Expecting value, column 6. It seems to be cut off there"),
        ("{'a': 1}\n", "line 1: not one JSON object"),
        ('{"a": 1}\n{"a": NaN}\n', "line 2: not one JSON object: NaN is no JSON value"),
        ('{"a": 1}\n{"a": -Infinity}\n', "line 2: not one JSON object: -Infinity is no JSON value"),
        ('{"a": 1e999}\n', "line 1: not one JSON object: the number 1e999 is beyond"),
        ('{"a": 1}\n{"b": {"x": 1, "y": 2, "x": 3}}\n', "line 2: not one JSON object: the key 'x' occurs twice"),
        ('{"a": 1}\n[1, 2]\n', "line 2: an array, but one object a line"),
        ('{"a": 1}\n17\n', "line 2: a number, expected an object"),
        ('{"a": 1}\nnull\n', "line 2: null, expected an object"),
        ('[{"a": 1},\n{"a": 2}]\n', "line 1: an array, but one object a line is expected"),
        ('{"a": 1}\n{"a": "\\ud83d"}\n', "line 2: \\ud83d is half of a surrogate pair"),
        ('{"a": 1}\n{"a": ' + "9" * 5000 + "}\n", "line 2: not one JSON object: "),
        ('{"a": 1}\n{"a": ' + "[" * 150 + "]" * 150 + "}\n", "line 2: lists and objects are nested more than 100"),
        ('{"a": 1}\n{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 2: lists and objects are nested"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, content: str, complaint: str) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        opened(tmp_path, content)
    assert f"train.jsonl, {complaint}" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"a": 1}, 5]', "train.json, element 2: a number"),
        ('[{"a": 1},\n{"a": }]', "line 2, column 7"),
        ('[{"a": 1}', "cut off"),
        ('{\n "data": [{"a": 1}]\n}', "neither an array of objects nor one object a line"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 100 deep"),
    ],
)
def test_errors_of_arrays(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(tmp_path, content, "train.json")
    assert complaint in str(caught.value)


def test_bytes_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl, line 3: the byte 0xE9 is not UTF-8"):
        opened(tmp_path, b'{"a": 1}\n\n{"a": "caf\xe9"}\n')
    with pytest.raises(UserError, match="UTF-16"):
        opened(tmp_path / "b", '{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(UserError, match=r"train\.json, line 2: the byte 0xE9 is not UTF-8"):
        opened(tmp_path / "c", b'[\n{"a": "caf\xe9"}]', "train.json")


def test_a_line_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: longer than 64 MiB"):
        opened(tmp_path, b'{"a": 1}\n{"a": "' + b"x" * (64 << 20) + b'"}\n')


def test_a_file_that_changes_after_it_was_opened_is_not_read(tmp_path: Path) -> None:
    table = opened(tmp_path, '{"a": 1}\n{"a": 2}\n')
    (tmp_path / "mine" / "default" / "train.jsonl").write_text('{"a": "longer"}\n{"a": 2}\n')
    with pytest.raises(UserError, match="files of split train changed while they were being read"):
        table.records()
