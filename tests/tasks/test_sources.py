"""Records from folders, against `datasets`, `csv` and `json` as oracles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t0train.core.errors import UserError
from t0train.tasks import Dataset, load_catalogue, missing_tables, open_table

MINE = Dataset("mine")
RECORDS: list[dict[str, Any]] = [
    {
        "id": f"r{i}",
        "text-part": f"Zeile {i} — ≠\nzwei",
        "label": i % 3,
        "score": None if i == 2 else i / 4,
        "answers": {"text": [f"a{i}", "b"][: i % 3], "start": [i, 2][: i % 3]},
        "tags": [["x"], []],
    }
    for i in range(23)
]


def put(folder: Path, records: list[dict[str, Any]] = RECORDS, name: str = "train.parquet", group: int = 5) -> Path:
    """Write records as the split file of the dataset MINE; returns the file."""
    path = folder / "mine" / "default" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=group)
    return path


def test_records_are_those_of_the_file(tmp_path: Path) -> None:
    put(tmp_path)
    table = open_table(MINE, "train", str(tmp_path))
    assert table.columns == list(RECORDS[0])
    assert (table.num_records, table.records()) == (23, RECORDS)
    assert open_table(MINE, "train[3:9]", str(tmp_path)).records(1, 4) == RECORDS[4:7]
    assert table.records(2, 3, ["label", "id"]) == [{"label": 2, "id": "r2"}]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_range_over_shards_and_row_groups(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "shards"
    if not folder.exists():
        for number, (start, stop) in enumerate([(0, 9), (9, 10), (10, 23)]):
            put(folder, RECORDS[start:stop], f"train-0000{number}-of-00003.parquet", group=4)
    first, last = sorted(data.draw(st.tuples(st.integers(0, 22), st.integers(1, 23)).filter(lambda p: p[0] != p[1])))
    table = open_table(MINE, f"train[{first}:{last}]", str(folder))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, table.num_records)] * 2)))
    assert table.records(start, stop) == RECORDS[first:last][start:stop]


def test_ranges_outside_the_table_are_refused(tmp_path: Path) -> None:
    put(tmp_path)
    table = open_table(MINE, "train", str(tmp_path))
    with pytest.raises(IndexError):
        table.records(-1, 3)
    with pytest.raises(IndexError):
        table.records(24, 30)


@pytest.mark.slow
def test_real_records_equal_those_of_datasets(real_data: Path, tmp_path: Path) -> None:
    """`datasets.load_dataset("parquet")` is the oracle: nested features, labels, lists and missing values."""
    import datasets

    files = sorted(real_data.glob("*/*/*.parquet"))
    assert files
    for path in files:
        name, subset, split = path.parts[-3], path.parts[-2], path.stem
        table = open_table(Dataset(name, "" if subset == "default" else subset), split, str(real_data))
        expected = datasets.load_dataset("parquet", data_files=[str(path)], split="train", cache_dir=str(tmp_path))
        assert (table.num_records, table.columns) == (expected.num_rows, expected.column_names), path
        assert table.records(0, 40) == [expected[i] for i in range(min(40, expected.num_rows))], path
        assert table.records(table.num_records - 1) == [expected[expected.num_rows - 1]], path


def test_arrow_files_as_datasets_writes_them(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "mine" / "default"
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved")
    folder.mkdir(parents=True)
    (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(folder / "train.arrow")
    with pa.ipc.new_file(folder / "test.arrow", pa.Table.from_pylist(RECORDS).schema) as writer:
        writer.write_table(pa.Table.from_pylist(RECORDS))
    assert open_table(MINE, "train", str(tmp_path)).records() == RECORDS
    assert open_table(MINE, "test[5:]", str(tmp_path)).records() == RECORDS[5:]


def test_jsonl_values_stay_as_they_stand(tmp_path: Path) -> None:
    records = [
        {"when": "2021-10-15", "nested": {"at": "2021-10-15T10:00:00", "n": [1, 2]}, "list": ["2020-01-01"], "x": True},
        {"when": "soon", "nested": {"at": "never", "n": []}, "list": [], "x": None},
    ]
    for number, chosen in enumerate([records, records[:1]]):  # the second holds nothing but dates
        folder = tmp_path / str(number) / "mine" / "default"
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in chosen), encoding="utf-8")
        assert open_table(MINE, "train", str(tmp_path / str(number))).records() == chosen


def test_revision_is_the_content_and_the_slice(tmp_path: Path) -> None:
    path = put(tmp_path / "a")
    put(tmp_path / "b")
    revision = open_table(MINE, "train", str(tmp_path / "a")).revision
    assert open_table(MINE, "train", str(tmp_path / "b")).revision == revision
    assert open_table(MINE, "train[:23]", str(tmp_path / "a")).revision == revision  # the same records
    assert open_table(MINE, "train[:22]", str(tmp_path / "a")).revision != revision
    put(tmp_path / "a", [{**RECORDS[0], "id": "changed"}, *RECORDS[1:]])
    assert open_table(MINE, "train", str(path.parents[2])).revision != revision


@pytest.mark.parametrize("how", ["replaced", "written to", "removed"])
def test_records_of_files_that_changed_since_are_refused(tmp_path: Path, how: str) -> None:
    """Otherwise they would be taken for what `revision` tells."""
    path = put(tmp_path)
    table = open_table(MINE, "train", str(tmp_path))
    assert table.records() == RECORDS
    if how == "replaced":
        put(tmp_path / "new", RECORDS[::-1]).replace(path)
    elif how == "written to":
        put(tmp_path, RECORDS[::-1])
    else:
        path.unlink()
    with pytest.raises(UserError, match="split train changed while"):
        table.records()
    if how != "removed":
        assert open_table(MINE, "train", str(tmp_path)).records() == RECORDS[::-1]


def test_missing_things_are_named(tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(UserError, match=r"no split 'validation' in .*; there: train"):
        open_table(MINE, "validation", str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        open_table(MINE, "train", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"did you mean 'mine/default'"):
        open_table(Dataset("nine"), "train", str(tmp_path))
    (tmp_path / "wino_bias" / "type1_pro").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no folder .*type2_pro; on the hub"):  # its neighbour is no misspelling
        open_table(load_catalogue()["wino_bias/type2_pro"], "test", str(tmp_path))
    with pytest.raises(UserError, match=r"no records of story_cloze/2016.*form at https"):
        open_table(load_catalogue()["story_cloze/2016"], "validation", str(tmp_path))
    with pytest.raises(UserError, match=r"train\[23:\] holds no record \(train has 23\)"):
        open_table(MINE, "train[23:]", str(tmp_path))
    (tmp_path / "empty" / "default").mkdir(parents=True)
    with pytest.raises(UserError, match="where nothing was found"):
        open_table(Dataset("empty"), "train", str(tmp_path))


def test_ambiguous_and_incomplete_files_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a")
    (tmp_path / "a/mine/default/train.csv").write_text("x\n1\n")
    with pytest.raises(UserError, match="'train' more than once"):
        open_table(MINE, "train", str(tmp_path / "a"))
    put(tmp_path / "b", name="train-00001-of-00002.parquet")
    with pytest.raises(UserError, match="1 of the 2 files"):
        open_table(MINE, "train", str(tmp_path / "b"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "csv"])
def test_broken_files_are_refused(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "mine" / "default"
    folder.mkdir(parents=True)
    (folder / f"train.{suffix}").write_bytes(b"\x00garbage" * 50)
    (folder / f"none.{suffix}").write_bytes(b"")
    for split in ("train", "none"):
        with pytest.raises(UserError, match=f"{split}.{suffix}"):
            open_table(MINE, split, str(tmp_path)).records()


def test_truncated_and_overwritten_parquet_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, RECORDS * 50, group=200)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="cannot read"):
        open_table(MINE, "train", str(tmp_path))
    path.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])  # the pages, not the footer
    table = open_table(MINE, "train", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot read .*damaged"):
        table.records()


def test_missing_tables_lists_all_of_them(tmp_path: Path) -> None:
    put(tmp_path)
    others = [Dataset("nine", hub_id="org/nine"), Dataset("gone", note="ask by letter")]
    assert missing_tables([MINE], {}, str(tmp_path)) == []
    found = missing_tables([MINE, *others], {"mine": "test"}, str(tmp_path))
    assert [(table.dataset.key, table.split) for table in found] == [
        ("mine", "test"),
        ("nine", "train"),
        ("gone", "train"),
    ]
    assert "there: train" in found[0].reason
    assert "on the hub: org/nine" in found[1].reason
    assert "ask by letter" in found[2].reason
    assert [table.dataset.key for table in missing_tables([*others], {}, "hub")] == ["gone"]


def test_importing_needs_no_heavy_library() -> None:
    code = "import sys, t0train.tasks, t0train.mixture; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "matplotlib"} & set(loaded)
