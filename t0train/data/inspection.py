"""Rows made readable: decoded with their segment marks, and the lengths of examples as a figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t0train.core.files import write_atomic
from t0train.data.loader import ROW_ID_SHIFT, PackedLoader, RowStatistics
from t0train.data.rows import RowBatch


def describe_rows(loader: PackedLoader, batch: RowBatch) -> list[dict[str, Any]]:
    """Each row as plain values: its place in the loader, its fill, and its segments with their decoded text."""
    described = []
    for row in range(len(batch)):
        window, number = divmod(int(batch.row_ids[row]), 1 << ROW_ID_SHIFT)
        members = np.flatnonzero(batch.example_rows == row)
        described.append(
            {
                "window": window,
                "row": number,
                "input_tokens": int(np.sum(batch.input_segments[row] > 0)),
                "target_tokens": int(np.sum(batch.target_segments[row] > 0)),
                "segments": [
                    {
                        "segment": segment,
                        "task": loader.task_names[batch.example_tasks[example]],
                        "example": int(batch.example_ids[example]),
                        "input": _text(loader, batch.input_ids[row], batch.input_segments[row], segment),
                        "target": _text(loader, batch.labels[row], batch.target_segments[row], segment),
                    }
                    for segment, example in enumerate(members.tolist(), start=1)
                ],
            }
        )
    return described


def _text(loader: PackedLoader, ids: NDArray[np.int32], segments: NDArray[np.int32], segment: int) -> str:
    return loader.vocabulary.decode(ids[segments == segment])


def draw_lengths(statistics: RowStatistics, max_inputs: int, max_targets: int, path: Path) -> None:
    """Histogram of input and target lengths, with the limits they are trimmed to; PNG, PDF or SVG by the suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    sides = (
        ("Inputs", statistics.input_lengths, max_inputs, statistics.trimmed_inputs),
        ("Targets", statistics.target_lengths, max_targets, statistics.trimmed_targets),
    )
    for axes, (title, lengths, limit, trimmed) in zip(figure.subplots(1, 2), sides, strict=True):
        longest = max(int(lengths.max()), limit)
        axes.hist(lengths, bins=np.geomspace(1, longest + 1, 50), color="#3b82d6")
        axes.axvline(limit, color="#d14b5a", linewidth=1.2)
        axes.set(xscale="log", xlabel="tokens", ylabel="examples")
        axes.set_title(f"{title}: mean {lengths.mean():,.1f}, {trimmed:.1%} beyond the limit of {limit:,}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:] or "png", dpi=150)
    write_atomic(path, image.getvalue())
