"""Packing on lengths of the real mixture: real rows under real templates, drawn by T0's rates among those at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from t0train.data import load_vocabulary, pack
from t0train.data.shards import encode_examples
from t0train.mixture import load_mixture
from t0train.tasks import open_table

pytestmark = pytest.mark.slow

WINDOWS = 24
ROWS = 48  # of each dataset


@pytest.fixture(scope="module")
def drawn_lengths(
    real_data: Path, t5_vocabulary: Path, promptsource_folder: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    del promptsource_folder  # only to skip without it
    vocabulary = load_vocabulary(t5_vocabulary)
    mixture = load_mixture("t0")
    lengths: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    rates = []
    for task, rate in zip(mixture.tasks, mixture.rates, strict=True):
        files = sorted((real_data / task.dataset.folder).glob("*.parquet"))
        tables = [open_table(task.dataset, file.stem, str(real_data)) for file in files]
        largest = max(tables, key=lambda table: table.num_records, default=None)
        if largest is None or largest.num_records < 20:
            continue
        every = max(1, largest.num_records // ROWS)
        rows = [{name.replace("-", "_"): value for name, value in row.items()} for row in largest.records()[::every]]
        batch = encode_examples([task.template.render(row) for row in rows], vocabulary, 0, ranked=False)
        if batch.num_rows:
            sides = [np.diff(batch.column(side).offsets.to_numpy()) for side in ("inputs", "targets")]
            lengths.append((sides[0], sides[1]))
            rates.append(rate)
    assert len({task.dataset.key for task in mixture.tasks}) == 38
    assert len(rates) > 120
    draw = np.random.default_rng(0)
    tasks = draw.choice(len(rates), WINDOWS * 1024, p=np.array(rates) / np.sum(rates))
    picked = [(task, draw.integers(len(lengths[task][0]))) for task in tasks]
    return np.array([lengths[t][0][i] for t, i in picked]), np.array([lengths[t][1][i] for t, i in picked])


def packed(inputs: NDArray[np.int64], targets: NDArray[np.int64], method: str) -> list[NDArray[np.int64]]:
    starts = range(0, len(inputs), 1024)
    return [
        start + row
        for start in starts
        for row in pack(inputs[start : start + 1024], targets[start : start + 1024], 1024, 256, method)
    ]


def test_best_fit_fills_the_rows_of_the_real_mixture(
    drawn_lengths: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    inputs, targets = drawn_lengths
    rows = packed(inputs, targets, "best_fit")
    # About 1 % of the examples have targets of 256 tokens and more: each takes a row that nothing else fits on, whoever
    # packs. On all the other rows inputs bind.
    full = targets >= 256
    assert full.mean() < 0.02
    binding = [row for row in rows if not full[row].any()]
    held = np.minimum(inputs[np.concatenate(binding)], 1024).sum()
    assert held / (len(binding) * 1024) >= 0.975
    fewest = full.sum() + np.ceil(np.minimum(inputs[~full], 1024).sum() / 1024)
    assert len(rows) <= 1.02 * fewest
    assert len(packed(inputs, targets, "next_fit")) > 1.2 * len(rows)
