"""The token store: one folder for each (task, split), an Arrow file of ids that is memory-mapped, and a manifest.

    <store>/<task>/<split>-<key>/tokens.arrow, manifest.json

Both files say which task, split and key they are of, and are compared with each other and with the folder's name.

Ids are stored untrimmed, inputs without EOS, targets and answer choices with it. The key is a hash of everything that
decides the ids, so another vocabulary, template or source revision is another folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from t0train.core.errors import UserError
from t0train.core.files import cache_folder
from t0train.core.hashing import content_hash, file_sha256
from t0train.data.counts import Counts
from t0train.data.vocabulary import Vocabulary
from t0train.prompts import RENDERER_VERSION
from t0train.tasks import Split, Table, Task

STORE_VERSION = 2
PLACE = "place"  # key of the metadata of a task's tokens: its folder, relative to the store
TOKENS = "tokens.arrow"
MANIFEST = "manifest.json"

IDS = pa.large_list(pa.uint16())
PLAIN = pa.schema([("inputs", IDS), ("targets", IDS), ("source_row", pa.int64())])
RANKED = PLAIN.append(pa.field("choices", pa.large_list(IDS))).append(pa.field("label", pa.int32()))


def store_folder(setting: str) -> Path:
    """The folder of the token store: `data.store`, or a folder in the user's cache."""
    return Path(setting) if setting else cache_folder() / "store"


@dataclass(frozen=True)
class StoreKey:
    """Everything that decides the tokens of a task's split."""

    task: str
    split: str
    parts: dict[str, Any]

    @classmethod
    def of(cls, task: Task, split: Split, table: Table, vocabulary: Vocabulary, seed: int) -> StoreKey:
        """The key of `task` on `split`; the seed counts only for templates that draw at random."""
        parts = {
            "dataset": task.dataset.key,
            "split": str(split),
            "source": table.revision,
            "template": task.template.fingerprint,
            "vocabulary": vocabulary.fingerprint,
            "renderer": RENDERER_VERSION,
            "store": STORE_VERSION,
            "seed": seed if task.template.is_random else None,
        }
        return cls(task.name, str(split), parts)

    @property
    def folder(self) -> str:
        """Path of the folder, relative to the store."""
        return _folder(self.task, self.split, self.parts)


def _folder(task: str, split: str, parts: Mapping[str, Any]) -> str:
    slug = re.sub(r"[^\w.]+", "-", split, flags=re.ASCII).strip("-")
    return f"{task}/{slug}-{content_hash(parts)}"


class TaskTokens:
    """The examples of one task's split, memory-mapped; opened with `open_folder` or `open_task_tokens`.

    Attributes:
        folder: where they are.
        manifest: counts, checksum, versions and the parts of the key.
        num_rows: examples; rows that the template dropped are not among them.
        counts: what is dubious about them, in numbers.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], batch: pa.RecordBatch) -> None:
        self.folder = folder
        self.manifest = manifest
        self.num_rows: int = batch.num_rows
        self.counts = Counts.read(manifest["counts"])
        self._inputs = _Ragged(batch.column("inputs"))
        self._targets = _Ragged(batch.column("targets"))
        self._source_rows = batch.column("source_row").to_numpy()
        ranked = batch.schema == RANKED
        self._choices = _NestedRagged(batch.column("choices")) if ranked else None
        self._labels = batch.column("label").to_numpy() if ranked else None

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"TaskTokens({self.manifest['task']!r}, split={self.manifest['split']!r}, rows={self.num_rows})"

    @cached_property
    def input_lengths(self) -> NDArray[np.int32]:
        """Tokens of each input, untrimmed, [rows]."""
        return np.diff(self._inputs.offsets).astype(np.int32)

    @cached_property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target, untrimmed, EOS included, [rows]."""
        return np.diff(self._targets.offsets).astype(np.int32)

    def lengths(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of the inputs and of the targets of some rows, read from the file, [rows] each."""
        return self._inputs.lengths(rows), self._targets.lengths(rows)

    def inputs(self, row: int) -> NDArray[np.uint16]:
        """Ids of the input, without EOS."""
        return self._inputs[row]

    def targets(self, row: int) -> NDArray[np.uint16]:
        """Ids of the target, EOS included."""
        return self._targets[row]

    def choices(self, row: int) -> list[NDArray[np.uint16]] | None:
        """Ids of each answer choice, EOS included; None for a task without choices."""
        return None if self._choices is None else self._choices[row]

    def label(self, row: int) -> int:
        """Index of the first choice that equals the target; -1 if none does or the task has no choices."""
        return -1 if self._labels is None else int(self._labels[row])

    def source_row(self, row: int) -> int:
        """The row of the source split's slice that the example was made from."""
        return int(self._source_rows[row])


class _Ragged:
    """A list array as two flat arrays that lie in the mapped file."""

    def __init__(self, array: pa.LargeListArray) -> None:
        self.offsets: NDArray[np.int64] = array.offsets.to_numpy()
        self.values: NDArray[np.uint16] = array.values.to_numpy()

    def __getitem__(self, row: int) -> NDArray[np.uint16]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.offsets[rows + 1] - self.offsets[rows]


class _NestedRagged:
    """A list-of-lists array as three flat arrays that lie in the mapped file."""

    def __init__(self, array: pa.LargeListArray) -> None:
        self.offsets: NDArray[np.int64] = array.offsets.to_numpy()
        self.inner_offsets: NDArray[np.int64] = array.values.offsets.to_numpy()
        self.values: NDArray[np.uint16] = array.values.values.to_numpy()

    def __getitem__(self, row: int) -> list[NDArray[np.uint16]]:
        first, last = self.offsets[row], self.offsets[row + 1]
        ends = self.inner_offsets[first : last + 1].tolist()
        return [self.values[start:end] for start, end in pairwise(ends)]


def open_folder(folder: Path, verify: bool = True) -> TaskTokens:
    """Open one folder of the store: the one place that decides whether its files are whole and belong there.

    Args:
        folder: `<store>/<task>/<split>-<key>`.
        verify: read the whole file once and compare its checksum; else only its size, schema and counts are checked.

    Raises:
        UserError: missing, incomplete or damaged, or of another task, split or key than the folder's name says.
    """
    try:
        manifest = read_manifest(folder)
        size = (folder / TOKENS).stat().st_size
        if size != manifest["bytes"]:
            raise _damaged(folder, f"{TOKENS} has {size:,} bytes instead of {manifest['bytes']:,}")
        if verify and file_sha256(folder / TOKENS) != manifest["sha256"]:
            raise _damaged(folder, f"the checksum of {TOKENS} is not the one of its manifest")
        with pa.memory_map(str(folder / TOKENS)) as file:
            batch = pa.ipc.open_file(file).get_batch(0)  # the mapping lives on in the batch
        if batch.schema not in (PLAIN, RANKED) or batch.num_rows != manifest["rows"]:
            raise _damaged(folder, f"{TOKENS} does not hold what its manifest says")
        found = (batch.schema.metadata or {}).get(PLACE.encode(), b"").decode()
        if found != _place(folder):
            raise _damaged(folder, f"{TOKENS} is of {found or 'an unknown task'}")
        batch.validate(full=verify)
        return TaskTokens(folder, manifest, batch)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no folder of the token store: {Path(error.filename).name} is missing.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise _damaged(folder, str(error)) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of one folder of the store, if it is that folder's.

    Raises:
        UserError: it is of another task, split or key, or was written by another version of t0train.
        OSError, ValueError, KeyError, TypeError, AttributeError: it is missing or damaged.
    """
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    parts = manifest["key_parts"]
    if parts["store"] != STORE_VERSION:
        raise UserError(
            f"{folder} was prepared by another version of t0train (store version {parts['store']}, here "
            f"{STORE_VERSION}); remove it, or keep it for that version."
        )
    found = _folder(manifest["task"], manifest["split"], parts)
    if found != _place(folder) or parts["split"] != manifest["split"]:
        raise _damaged(folder, f"its manifest is of {found}")
    return manifest


def _place(folder: Path) -> str:
    whole = folder.absolute()
    return f"{whole.parent.name}/{whole.name}"


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"the token store is damaged: {what} ({folder}). `t0train data prepare` makes the task again.")


def verify_store(store: Path) -> Iterator[TaskTokens | UserError]:
    """Open every folder of a store and compare its checksum; gives back the tokens, or what is wrong with them.

    Raises:
        UserError: `store` holds no task.
    """
    folders = sorted(path for path in store.glob(f"[!.]*/*-{'[0-9a-f]' * 16}") if path.is_dir())
    if not folders:
        raise UserError(f"{store} is no token store: there is no folder <task>/<split>-<key> in it.")
    for folder in folders:
        try:
            yield open_folder(folder)
        except UserError as error:
            yield error


def missing_reason(store: Path, key: StoreKey) -> str:
    """Why there is no folder for `key`: nothing prepared, or prepared from something else."""
    phrases = {
        "source": "other source rows",
        "template": "another template text",
        "vocabulary": "another vocabulary",
        "renderer": "another version of the renderer",
        "store": "another version of the store",
        "seed": "another seed",
    }
    for manifest in sorted((store / key.task).glob(f"*/{MANIFEST}")):
        try:
            parts = json.loads(manifest.read_text(encoding="utf-8"))["key_parts"]
            differing = [phrase for part, phrase in phrases.items() if parts.get(part) != key.parts[part]]
            if parts["split"] == key.split and differing:
                return f"prepared with {' and '.join(differing)}"
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged neighbour says nothing about this key
    return "not prepared"
