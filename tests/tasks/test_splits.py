"""Splits as users write them; and how they lie in a folder: files, shards, as `datasets` and the hub write them."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t0train.core.errors import UserError
from t0train.tasks import Dataset, Split, explain_nothing_found, list_missing, open_table, parse_split
from t0train.tasks.splits import split_files

MINE = Dataset("mine")
RECORDS = [{"text": f"record {i}"} for i in range(5)]


def folder_of(source: Path) -> Path:
    folder = source / "mine" / "default"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_tables_that_datasets_saved(tmp_path: Path) -> None:
    """A dictionary of splits in the dataset's folder; caches that `datasets` leaves in it are not records."""
    split = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict({"train": split, "test": split.select([0])}).save_to_disk(folder_of(tmp_path))
    (tmp_path / "mine" / "default" / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"not records")
    assert sorted(split_files(folder_of(tmp_path))) == ["test", "train"]
    assert open_table(MINE, "train", str(tmp_path)).records() == RECORDS
    assert open_table(MINE, "test", str(tmp_path)).records() == RECORDS[:1]
    (tmp_path / "mine" / "default" / "train" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UserError, match=r"lacks data-00000-of-00001\.arrow"):
        open_table(MINE, "train", str(tmp_path))


def test_one_table_that_datasets_saved(tmp_path: Path) -> None:
    named = datasets.Dataset.from_list(RECORDS, split=datasets.Split("validation"))
    named.save_to_disk(folder_of(tmp_path), num_shards=2)
    assert len(list(folder_of(tmp_path).glob("*.arrow"))) == 2
    assert open_table(MINE, "validation", str(tmp_path)).records() == RECORDS
    datasets.Dataset.from_list(RECORDS).save_to_disk(folder_of(tmp_path / "nameless"))
    with pytest.raises(UserError, match="saved without the name of its split"):
        open_table(MINE, "train", str(tmp_path / "nameless"))


def test_a_state_that_names_foreign_files_is_refused(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "train").mkdir()
    states: list[object] = [{"_data_files": [{"filename": "../../x.arrow"}]}, {}, [], {"_data_files": []}]
    for state in states:
        (folder_of(tmp_path) / "train" / "state.json").write_text(json.dumps(state))
        with pytest.raises(UserError, match=r"state\.json is not what `datasets` writes"):
            open_table(MINE, "train", str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train-00000-of-00002-6ef3991c06080e14.parquet", "train-00001-of-00002-a2b3c4d5e6f70819.parquet"],
        ["train/0000.parquet", "train/0001.parquet"],
    ],
)
def test_shards_as_the_hub_names_them(tmp_path: Path, names: list[str]) -> None:
    for name, records in zip(names, (RECORDS[:3], RECORDS[3:]), strict=True):
        path = folder_of(tmp_path) / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(records), path)
    assert open_table(MINE, "train", str(tmp_path)).records() == RECORDS
    (folder_of(tmp_path) / names[0]).unlink()
    with pytest.raises(UserError, match="add the rest"):
        open_table(MINE, "train", str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["train.csv", "train.parquet"],
        ["train.csv", "train.csv.gz"],
        ["train-00000-of-00002.csv", "train-00001-of-00002.parquet"],
        ["train-00000-of-00001-6ef3991c.csv", "train-00000-of-00001-a2b3c4d5.csv"],
        ["train.parquet", "train/0000.parquet"],
    ],
)
def test_a_split_that_is_there_twice(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        path = folder_of(tmp_path) / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(UserError, match=r"'train' more than once \(train.*keep one of them\.$"):
        open_table(MINE, "train", str(tmp_path))


@pytest.mark.parametrize("name", ["train.pkl", "train.txt", "data/train.parquet", "train.csv.zip", "dataset_info.json"])
def test_what_lies_there_is_named(tmp_path: Path, name: str) -> None:
    path = folder_of(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(UserError) as caught:
        open_table(MINE, "train", str(tmp_path))
    assert f"where {'data/' if '/' in name else name} was found" in str(caught.value)
    assert "<split>.<format>" in str(caught.value)
    assert "parquet, arrow, jsonl, json, csv, tsv" in str(caught.value)


def test_sources_that_can_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("text\na\n")
    (tmp_path / "empty").mkdir()
    for source, complaint in (("records.csv", "a file"), ("empty", "an empty folder"), ("none", "no such folder")):
        with pytest.raises(UserError, match=complaint):
            open_table(MINE, "train", str(tmp_path / source))
    (tmp_path / "source" / "mine").mkdir(parents=True)
    (tmp_path / "source" / "mine" / "train.csv").write_text("text\na\n")
    with pytest.raises(UserError, match=r"move what lies in .*mine into .*default"):
        open_table(MINE, "train", str(tmp_path / "source"))
    (tmp_path / "source" / "mine" / "default").touch()
    with pytest.raises(UserError, match="default is a file"):
        open_table(MINE, "train", str(tmp_path / "source"))


def test_a_folder_one_level_too_high_or_too_low_is_noticed(tmp_path: Path) -> None:
    both = [MINE, Dataset("yours", "part")]
    folder = folder_of(tmp_path / "records")
    (folder / "train.csv").write_text("text\na\n")
    assert explain_nothing_found(both, str(tmp_path / "records")) == ""
    for source in (tmp_path, tmp_path / "records" / "mine"):
        reason = explain_nothing_found(both, str(source))
        assert f"{source} holds none of their folders" in reason
        assert f"did you mean {tmp_path / 'records'}, which" in reason
        with pytest.raises(UserError, match=rf"did you mean data\.source={tmp_path / 'records'}\?"):
            open_table(MINE, "train", str(source))
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    reason = explain_nothing_found(both, str(tmp_path / "elsewhere"))
    assert "there: deep/" in reason
    assert "did you mean" not in reason


def test_a_reason_is_listed_once() -> None:
    listed = list_missing([("a", "train", "no records"), ("b", "train", "other"), ("c", "test", "no records")])
    assert listed == "  no records:\n    a (train), c (test)\n  b (train): other"


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", Split("train")),
        ("train_r1", Split("train_r1")),
        ("test[:1000]", Split("test", 0, 1000)),
        ("test[1000:]", Split("test", 1000)),
        ("test[5:9]", Split("test", 5, 9)),
        ("test[:]", Split("test")),
    ],
)
def test_splits_and_slices(text: str, split: Split) -> None:
    assert parse_split(text) == split


@pytest.mark.parametrize(
    "text",
    [
        "",
        "test[",
        "test[1000]",
        "test[:10%]",
        "test[-5:]",
        "test[9:9]",
        "test[9:3]",
        f"test[:{'9' * 5000}]",
        "a b",
        "../train",
        "a/b",
    ],
)
def test_malformed_splits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="split"):
        parse_split(text)


numbers = st.integers(0, 30)
splits = st.builds(
    lambda name, start, length: Split(name, start, None if length is None else start + length + 1),
    *(st.sampled_from(["train", "test"]), numbers, st.none() | numbers),
)


@given(split=splits, records=numbers)
def test_bounds_are_those_of_a_python_slice(split: Split, records: int) -> None:
    start, stop = split.bounds(records)
    assert list(range(records))[start:stop] == list(range(records))[split.start : split.stop]
    assert parse_split(str(split)) == split


@given(one=splits, other=splits)
def test_overlap_is_a_shared_record(one: Split, other: Split) -> None:
    def records(split: Split) -> set[tuple[str, int]]:
        return {(split.name, record) for record in range(*split.bounds(100))}

    assert one.overlaps(other) == bool(records(one) & records(other))
