"""Records from the Hugging Face hub, as data files only: since `datasets` 4 no dataset script runs, and none should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t0train.core.errors import UserError
from t0train.tasks.catalogue import Dataset

CONVERTED = "refs/convert/parquet"  # the hub's own Parquet copy of datasets that were scripts
_INSTEAD = "Or put its files into a folder as <dataset>/<subset or default>/<split>.parquet and set data.source to it."


class HubReader:
    """Records of a split that `datasets` has fetched into its cache."""

    def __init__(self, loaded: Any, name: str) -> None:
        self._loaded, self._name = loaded.with_format("arrow"), name
        self.columns: Sequence[str] = loaded.column_names
        self.num_records: int = loaded.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Records `start` to `stop`."""
        from t0train.tasks.arrow import to_records

        wanted = self.columns if columns is None else columns
        return to_records(self._loaded.select_columns(list(wanted))[start:stop], wanted, self._name, start)


def open_hub(dataset: Dataset, split: str) -> tuple[HubReader, str]:
    """The records of a split, and their identity: `datasets`' fingerprint, made of the resolved revision and the split.

    Raises:
        UserError: not on the hub, no network, gated, script-only, no such split or configuration; with what to do.
    """
    if not dataset.hub_id:
        note = dataset.note or "the catalogue knows no hub_id for it"
        raise UserError(f"{dataset.key} is not on the hub: {note}. {_INSTEAD}")
    import datasets

    config = dataset.hub_config or None
    try:
        if dataset.revision == CONVERTED:
            files = f"hf://datasets/{dataset.hub_id}@{CONVERTED}/{config or 'default'}/{split}/*.parquet"
            loaded = datasets.load_dataset("parquet", data_files={split: files}, split=split)
        else:
            loaded = datasets.load_dataset(dataset.hub_id, config, split=split, revision=dataset.revision or None)
    except Exception as error:  # the library raises a dozen types here, its own, requests', httpx', fsspec's
        raise UserError(_explain(dataset, split, error)) from error
    return HubReader(loaded, f"{dataset.key} of the hub"), str(loaded._fingerprint)


def _explain(dataset: Dataset, split: str, error: Exception) -> str:
    """What went wrong, by the library's message, and what to do about it."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    text = f"{type(error).__name__} {error}".lower()
    where = dataset.hub_id + (f" ({dataset.hub_config})" if dataset.hub_config else "")
    if "gated" in text or "401" in text or "authenticated" in text:
        hint = "It is gated: accept its terms on the hub and log in with `hf auth login`."
    elif "scripts are no longer supported" in text:
        hint = f"It is a loading script there; name another copy, or the revision {CONVERTED}, in your data.catalogue."
    elif "split" in text:
        hint = f"It seems to have no split {split!r}; name another in data.splits, e.g. data.splits.{dataset.key}=test."
    elif any(word in text for word in ("offline", "connection", "resolve", "timed out", "timeout", "proxy", "network")):
        hint = "The hub could not be reached: check the network (HF_HUB_OFFLINE, HTTPS_PROXY, HF_ENDPOINT)."
    else:
        hint = "Check hub_id, hub_config and revision; your data.catalogue may give others."
    note = f" Known about it: {dataset.note}." if dataset.note else ""
    return f"cannot load split {split!r} of {dataset.key} from the hub, id {where}: {said} {hint} {_INSTEAD}{note}"
