"""Packed rows: several examples on one row of a batch, distinguished by segment numbers.

One builder serves training (one target for each input) and ranking (several targets, the answer choices, read one
input).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from t0train.data.vocabulary import EOS_ID, PAD_ID

Ids = NDArray[np.integer] | Sequence[int]
Example = tuple[Ids, Sequence[Ids]]


@dataclass
class RowBatch:
    """Rows of packed examples. Segments count from 1 in each row; 0 is padding.

    Attributes:
        input_ids, input_segments: int32 [rows, max_inputs].
        decoder_input_ids: int32 [rows, max_targets]; the labels of each segment shifted right behind a 0.
        labels: int32 [rows, max_targets], 0 on padding.
        target_segments: int32 [rows, max_targets].
        target_sources: int32 [rows, max_targets]; the input segment that the target segment reads. In training it
            equals `target_segments`.
        row_ids: int64 [rows]; identity of the row in the whole run. Dropout masks are keyed by it.
        example_rows: int32 [examples]; the row that holds each example, in ascending order.
        example_tasks: int32 [examples]; index of its task in the mixture.
        example_ids: int64 [examples]; its index in the task's token store.
    """

    input_ids: NDArray[np.int32]
    input_segments: NDArray[np.int32]
    decoder_input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    target_segments: NDArray[np.int32]
    target_sources: NDArray[np.int32]
    row_ids: NDArray[np.int64]
    example_rows: NDArray[np.int32]
    example_tasks: NDArray[np.int32]
    example_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def fill(self) -> tuple[float, float]:
        """Share of the input slots, and of the target slots, that hold a token."""
        return float(np.mean(self.input_segments > 0)), float(np.mean(self.target_segments > 0))

    @property
    def target_slots(self) -> int:
        """Target slots, padding included."""
        return self.labels.size

    @property
    def target_tokens(self) -> int:
        """Target tokens: what the loss is summed over."""
        return int((self.labels > 0).sum())

    def without_targets(self) -> RowBatch:
        """The same inputs with nothing to learn from them: no loss, and a gradient of zeros."""
        return replace(self, labels=np.zeros_like(self.labels))

    def slice(self, start: int, stop: int) -> RowBatch:
        """Rows [start, stop) with their examples: a micro-batch."""
        first, last = np.searchsorted(self.example_rows, [start, stop])
        parts = {
            field.name: getattr(self, field.name)[first:last]
            if field.name.startswith("example_")
            else getattr(self, field.name)[start:stop]
            for field in fields(self)
        }
        return replace(self, **{**parts, "example_rows": parts["example_rows"] - np.int32(start)})


def build_rows(
    rows: Sequence[Sequence[Example]],
    max_inputs: int,
    max_targets: int,
    row_ids: Sequence[int] | NDArray[np.int64] | None = None,
    example_tasks: Sequence[int] | NDArray[np.integer] | None = None,
    example_ids: Sequence[int] | NDArray[np.integer] | None = None,
) -> RowBatch:
    """Lay examples out on rows.

    Inputs are trimmed to the first `max_inputs` ids and targets to the first `max_targets`. A target that fills a
    whole row keeps its end: the last slot of a row is clipped to 0..1, i.e. a real id there becomes EOS (Mesh
    TensorFlow's ensure_dataset_eos; only a trimmed target can have anything else there).

    Args:
        rows: for each row its examples; an example is (input ids, [target ids, ...]).
        max_inputs: input slots of a row.
        max_targets: target slots of a row.
        row_ids: identity of each row; 0, 1, 2, ... when absent.
        example_tasks: task of each example in reading order; 0 when absent.
        example_ids: index of each example in its task; 0, 1, 2, ... when absent.

    Raises:
        ValueError: a row's examples do not fit on it, or an example has no input.
    """
    examples = [example for row in rows for example in row]
    example_rows = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    first = _firsts(example_rows, len(rows))
    example_segments = np.arange(len(examples)) - first[example_rows] + 1

    choices = [len(targets) for _, targets in examples]
    target_rows = np.repeat(example_rows, choices)
    target_sources = np.repeat(example_segments, choices)
    target_segments = np.arange(len(target_rows)) - _firsts(target_rows, len(rows))[target_rows] + 1

    inputs = [np.asarray(ids)[:max_inputs] for ids, _ in examples]
    targets = [np.asarray(ids)[:max_targets] for _, answers in examples for ids in answers]
    if any(len(ids) == 0 for ids in inputs):
        raise ValueError("an example has no input ids: its targets would have nothing to read")
    input_slots = _slots(example_rows, inputs, len(rows), max_inputs, "inputs")
    target_slots = _slots(target_rows, targets, len(rows), max_targets, "targets")

    labels = _filled(target_slots, _concatenate(targets), (len(rows), max_targets))
    labels[:, -1] = np.clip(labels[:, -1], PAD_ID, EOS_ID)
    target_lengths = [len(ids) for ids in targets]
    segments = _filled(target_slots, np.repeat(target_segments, target_lengths), labels.shape)
    shifted = np.zeros_like(labels)
    same = segments[:, 1:] == segments[:, :-1]
    shifted[:, 1:] = np.where(same & (segments[:, 1:] > 0), labels[:, :-1], PAD_ID)
    input_lengths = [len(ids) for ids in inputs]
    return RowBatch(
        input_ids=_filled(input_slots, _concatenate(inputs), (len(rows), max_inputs)),
        input_segments=_filled(input_slots, np.repeat(example_segments, input_lengths), (len(rows), max_inputs)),
        decoder_input_ids=shifted,
        labels=labels,
        target_segments=segments,
        target_sources=_filled(target_slots, np.repeat(target_sources, target_lengths), labels.shape),
        row_ids=np.arange(len(rows)) if row_ids is None else np.asarray(row_ids, np.int64),
        example_rows=example_rows.astype(np.int32),
        example_tasks=np.zeros(len(examples), np.int32)
        if example_tasks is None
        else np.asarray(example_tasks, np.int32),
        example_ids=np.arange(len(examples)) if example_ids is None else np.asarray(example_ids, np.int64),
    )


def _firsts(row_of: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Index of each row's first piece, where piece i lies on row `row_of[i]`."""
    return np.searchsorted(row_of, np.arange(rows))


def _slots(
    row_of: NDArray[np.int64], pieces: Sequence[NDArray[np.integer]], rows: int, width: int, side: str
) -> NDArray[np.int64]:
    """Flat position in [rows, width] of every id of every piece, pieces side by side on their rows."""
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    used = np.bincount(row_of, lengths, rows)
    if used.size and used.max() > width:
        raise ValueError(f"row {int(used.argmax())} needs {int(used.max())} slots for its {side}, but it has {width}")
    row_starts = np.concatenate([starts, ends[-1:]])[_firsts(row_of, rows)] if len(pieces) else np.zeros(rows, np.int64)
    offsets = row_of * width - row_starts[row_of]
    return np.repeat(offsets, lengths) + np.arange(int(lengths.sum()))


def _filled(slots: NDArray[np.int64], values: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.int32]:
    out = np.zeros(shape, np.int32)
    out.reshape(-1)[slots] = values
    return out


def _concatenate(pieces: Sequence[NDArray[np.integer]]) -> NDArray[np.integer]:
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
