"""Scores of single items, as an evaluation leaves them in Parquet files, and the paired difference of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from t0train.core.bootstrap import Difference, Scored, paired_difference
from t0train.core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Items: TypeAlias = dict[tuple[str, str], dict[str, Scored]]
"""By dataset and split: for each task the rows and their scores."""

_FILES = {"scores.parquet": "right", "generations.parquet": "score"}
"""With the column that holds an item's score."""


def read_items(folder: Path) -> Items:
    """All items of an evaluation folder; empty if it holds no Parquet file.

    Raises:
        UserError: a damaged file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: Items = {}
    for name, column in _FILES.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            table = pq.read_table(path, columns=["dataset", "split", "task", "row", column])
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        _add(found, table, column)
    return found


def _add(found: Items, table: pa.Table, column: str) -> None:
    keys = [table[name].to_numpy(zero_copy_only=False) for name in ("dataset", "split", "task")]
    rows, scores = table["row"].to_numpy(), table[column].to_numpy()
    changes = np.zeros(len(rows), dtype=bool)
    for values in keys:
        changes[1:] |= values[1:] != values[:-1]
    for part in np.split(np.arange(len(rows)), np.flatnonzero(changes)):
        if len(part):
            dataset, split, task = (str(values[part[0]]) for values in keys)
            found.setdefault((dataset, split), {})[task] = (rows[part], scores[part])


def paired(first: dict[str, Scored], second: dict[str, Scored], seed: int) -> tuple[int, Difference] | None:
    """Number of shared prompts, and the first model minus the second on the items that both have under these.

    Equal tasks and row numbers must mean the same item.

    Returns:
        None if they share no item.
    """
    pairs = []
    for task in sorted(first.keys() & second.keys()):  # sums of floats depend on their order: it must not be a set's
        (rows, scores), (others, other_scores) = first[task], second[task]
        _, here, there = np.intersect1d(rows, others, assume_unique=True, return_indices=True)
        if len(here):
            pairs.append(((rows[here], scores[here]), (others[there], other_scores[there])))
    if not pairs:
        return None
    return len(pairs), paired_difference([one for one, _ in pairs], [other for _, other in pairs], seed)
