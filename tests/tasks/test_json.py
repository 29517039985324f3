"""JSON lines and JSON arrays: every row is its own object, and errors name the line. `json` is the oracle."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from t0train.core.errors import UserError
from t0train.tasks import Dataset, Table, open_table

MINE = Dataset("mine")
ROWS: list[dict[str, Any]] = [
    {"q": "first", "options": {"A": "x", "B": "y"}, "tags": [{"k": None}, {}], "n": 10**30, "mixed": 1},
    {"q": "zweite ≠", "options": {"A": "x", "C": None, "D": "w"}, "tags": [], "n": -0.5, "mixed": "one"},
    {"q": None, "options": {}, "tags": [], "n": None, "mixed": [True]},
]


def opened(folder: Path, content: str | bytes, name: str = "train.jsonl") -> Table:
    path = folder / "mine" / "default" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_table(MINE, "train", str(folder))


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.jsonl", lines(ROWS)),
        ("train.jsonl", "\n" + lines(ROWS).replace("\n", "\r\n\r\n").rstrip()),
        ("train.json", lines(ROWS)),
        ("train.json", json.dumps(ROWS, indent=2)),
    ],
)
def test_rows_are_the_objects(tmp_path: Path, name: str, content: str, mark: str) -> None:
    """Keys of inner objects are those of each row; text beyond 64 bits and mixed columns stay."""
    table = opened(tmp_path, mark + content, name)
    assert table.rows() == ROWS
    assert [list(row["options"]) for row in table.rows()] == [["A", "B"], ["A", "C", "D"], []]
    assert table.rows(1, 3, ["mixed", "q"]) == [{"mixed": "one", "q": "zweite ≠"}, {"mixed": [True], "q": None}]
    (tmp_path / "gz").mkdir()
    assert opened(tmp_path / "gz", gzip.compress((mark + content).encode()), name + ".gz").rows() == ROWS


def test_a_column_that_a_row_lacks_is_null(tmp_path: Path) -> None:
    table = opened(tmp_path, '{"a": 1}\n{"b": 2, "a": 3}\n')
    assert (table.columns, table.rows()) == (["a", "b"], [{"a": 1, "b": None}, {"a": 3, "b": 2}])


def test_ranges_over_shards(tmp_path: Path) -> None:
    rows = [{"i": i, "text": "ä" * (i % 7)} for i in range(30)]
    folder = tmp_path / "mine" / "default"
    folder.mkdir(parents=True)
    for number, (first, last) in enumerate([(0, 4), (4, 5), (5, 30)]):
        (folder / f"train-0000{number}-of-00003.jsonl").write_text(lines(rows[first:last]), encoding="utf-8")
    table = open_table(MINE, "train[1:29]", str(tmp_path))
    for start in range(28):
        for stop in range(start, 29):
            assert table.rows(start, stop) == rows[1:29][start:stop]


def test_nobody_can_change_the_rows_of_others(tmp_path: Path) -> None:
    table = opened(tmp_path, json.dumps(ROWS), "train.json")
    table.rows()[0]["options"].clear()
    assert table.rows() == ROWS


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
        ('{"a": 1}\n{"b": {"x": 1, "y": 2, "x": 3}}\n', "line 2: not one JSON object: the key 'x' stands twice"),
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
        table.rows()
