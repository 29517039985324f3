"""Records from the hub: what is asked of `datasets`, and how its refusals are explained. No network is used."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from t0train.core.errors import UserError
from t0train.tasks import Dataset, load_catalogue, open_table

RECORDS = [{"text": f"record {i}", "label": i, "answers": {"text": ["a"] * i}} for i in range(6)]


class Hub:
    """Stands in for `datasets.load_dataset`: keeps the call, gives records or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.calls = error, list[tuple[tuple[Any, ...], dict[str, Any]]]()

    def __call__(self, *args: Any, **options: Any) -> datasets.Dataset:
        self.calls.append((args, options))
        if self.error:
            raise self.error
        return datasets.Dataset.from_list(RECORDS)


def test_records_and_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", hub := Hub())
    table = open_table(
        Dataset("glue", "mrpc", hub_id="nyu-mll/glue", hub_config="mrpc", revision="abc"), "test[2:]", "hub"
    )
    assert (table.columns, table.num_records) == (["text", "label", "answers"], 4)
    assert table.records() == RECORDS[2:]
    assert table.records(1, 2, ["label"]) == [{"label": 3}]
    assert hub.calls == [(("nyu-mll/glue", "mrpc"), {"split": "test", "revision": "abc"})]


def test_bytes_are_text_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"id": 0, "raw": "café".encode()}, {"id": 1, "raw": b"caf\xe9"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(records))
    table = open_table(Dataset("mine", hub_id="a/b"), "train", "hub")
    assert table.records(0, 1) == [{"id": 0, "raw": "café"}]
    assert table.records(columns=["id"]) == [{"id": 0}, {"id": 1}]
    with pytest.raises(UserError, match="mine of the hub, column 'raw', record 2: the byte 0xE9"):
        table.records()


def test_script_datasets_are_read_from_the_hubs_parquet_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", hub := Hub())
    open_table(load_catalogue()["xsum"], "train", "hub")
    path = "hf://datasets/EdinburghNLP/xsum@refs/convert/parquet/default/train/*.parquet"
    assert hub.calls == [(("parquet",), {"data_files": {"train": path}, "split": "train"})]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)"), "HF_HUB_OFFLINE"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "hf auth login"),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "refs/convert/parquet"),
        (ValueError("Unknown split \"test\". Should be one of ['train']."), "no split 'test'"),
        (ValueError("BuilderConfig 'x' not found. Available: ['y']"), "hub_config"),
        (DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."), "Check hub_id"),
    ],
)
def test_refusals_say_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, hint: str) -> None:
    monkeypatch.setattr(datasets, "load_dataset", Hub(error))
    with pytest.raises(UserError) as raised:
        open_table(Dataset("b", hub_id="a/b"), "test", "hub")
    message = str(raised.value)
    assert hint in message
    assert str(error).splitlines()[0] in message
    assert "data.source" in message


def test_datasets_that_are_not_there_need_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", hub := Hub())
    with pytest.raises(UserError, match=r"story_cloze/2016 is not on the hub.*form at"):
        open_table(load_catalogue()["story_cloze/2016"], "validation", "hub")
    assert not hub.calls
