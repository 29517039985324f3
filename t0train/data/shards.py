"""The unit of preparation: some rows of a split under all templates of their dataset, rendered and tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from t0train.core.errors import UserError
from t0train.core.files import write_atomic
from t0train.core.hashing import derive_seed
from t0train.data.counts import COUNTS, count_examples
from t0train.data.store import IDS, PLAIN, RANKED
from t0train.data.vocabulary import EOS_ID, Vocabulary
from t0train.prompts import Rendered, columns_read
from t0train.tasks import Dataset, Table, Task, open_table

SHARD_ROWS = 2048  # source rows; with eight templates about 16,000 examples, some seconds of work


@dataclass(frozen=True)
class Shard:
    """Rows `start` to `stop` of a split, and the files that its tasks' examples go to. Can be sent to a process.

    It names what it is made of by content: `revision` of the table and `fingerprint` of the vocabulary, so that it
    cannot be made of files that changed since it was planned.
    """

    dataset: Dataset
    split: str
    source: str
    revision: str
    start: int
    stop: int
    tasks: tuple[tuple[Task, Path], ...]
    vocabulary: Path
    fingerprint: str
    seed: int

    @property
    def examples(self) -> int:
        """Examples to render, dropped ones included."""
        return (self.stop - self.start) * len(self.tasks)


def make_shard(shard: Shard) -> Shard:
    """Render and tokenise a shard; each task's examples become one Arrow file, written whole or not at all.

    Raises:
        UserError: unreadable rows, rows or a vocabulary that changed since the shard was planned, a template that fails
            on a row, a full disk.
    """
    rows = _rows(shard)
    vocabulary = _vocabulary(shard.vocabulary, shard.fingerprint)
    for task, path in shard.tasks:
        seeds = (
            [derive_seed(shard.seed, task.name, row) for row in range(shard.start, shard.stop)]
            if task.template.is_random
            else [0] * len(rows)
        )
        examples = [task.template.render(row, seed) for row, seed in zip(rows, seeds, strict=True)]
        batch = encode_examples(examples, vocabulary, shard.start, task.template.answer_choices is not None)
        counts = count_examples(examples, batch, shard.start, vocabulary)
        batch = batch.replace_schema_metadata({COUNTS: counts.to_json()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        write_atomic(path, sink.getvalue().to_pybytes())
    return shard


def _rows(shard: Shard) -> list[dict[str, Any]]:
    """The rows, with only the columns that some template reads."""
    table = _table(shard)
    columns = columns_read((task.template for task, _ in shard.tasks), table.columns)
    if not columns:  # a template of fixed text: its rows still have to be counted
        columns = table.columns[:1]
    return table.records(shard.start, shard.stop, columns)


def _table(shard: Shard) -> Table:
    table = _open_table(shard.dataset, shard.split, shard.source, shard.revision)
    if not table.watch.is_unchanged():  # opened for an earlier shard; its files may be the same again
        _open_table.cache_clear()
        table = _open_table(shard.dataset, shard.split, shard.source, shard.revision)
    return table


@lru_cache(maxsize=1)
def _open_table(dataset: Dataset, split: str, source: str, revision: str) -> Table:
    table = open_table(dataset, split, source)
    if table.revision != revision:
        raise UserError(
            f"{table.watch.origin}: files of split {split} changed since the preparation began; run the same command"
            " again, which takes what is there now."
        )
    return table


@lru_cache(maxsize=1)
def _vocabulary(path: Path, fingerprint: str) -> Vocabulary:
    vocabulary = Vocabulary(path)
    if vocabulary.fingerprint != fingerprint:
        raise UserError(
            f"the vocabulary {path} changed since the preparation began; run the same command again, which takes the"
            " new one, or put the old one back."
        )
    return vocabulary


def encode_examples(
    examples: Sequence[Rendered | None], vocabulary: Vocabulary, first_row: int, ranked: bool
) -> pa.RecordBatch:
    """The examples as a record batch of the store's schema.

    Examples that the template dropped (None) and those whose input has no token are left out.

    Args:
        examples: one for each source row.
        vocabulary: makes the ids.
        first_row: source row of the first example.
        ranked: whether the task has answer choices.
    """
    kept = [(i, example) for i, example in enumerate(examples) if example is not None]
    inputs = vocabulary.encode_many([example.input for _, example in kept])
    kept = [pair for pair, ids in zip(kept, inputs, strict=True) if len(ids)]
    rows = np.array([first_row + i for i, _ in kept], np.int64)
    columns = [
        _ragged([ids for ids in inputs if len(ids)]),
        _ragged(_with_eos([example.target for _, example in kept], vocabulary)),
        pa.array(rows),
    ]
    if not ranked:
        return pa.record_batch(columns, schema=PLAIN)
    choices = [example.choices or () for _, example in kept]
    labels = [
        options.index(example.target) if example.target in options else -1
        for (_, example), options in zip(kept, choices, strict=True)
    ]
    flat = _ragged(_with_eos([choice for options in choices for choice in options], vocabulary))
    nested = pa.LargeListArray.from_arrays(_offsets([len(options) for options in choices]), flat)
    return pa.record_batch([*columns, nested, pa.array(labels, pa.int32())], schema=RANKED)


def _with_eos(texts: Sequence[str], vocabulary: Vocabulary) -> list[NDArray[np.uint16]]:
    """Ids of each text, closed by EOS. Targets and choices repeat: each distinct text is tokenised once."""
    distinct = list(dict.fromkeys(texts))
    eos = np.array([EOS_ID], np.uint16)
    ids = dict(zip(distinct, (np.concatenate([piece, eos]) for piece in vocabulary.encode_many(distinct)), strict=True))
    return [ids[text] for text in texts]


def _ragged(pieces: Sequence[NDArray[np.uint16]]) -> Any:
    values = np.concatenate(pieces) if pieces else np.zeros(0, np.uint16)
    return pa.LargeListArray.from_arrays(_offsets([len(piece) for piece in pieces]), pa.array(values, IDS.value_type))


def _offsets(lengths: Sequence[int]) -> Any:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
