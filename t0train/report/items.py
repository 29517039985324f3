"""Scores of single items, as an evaluation leaves them in Parquet files, and the paired difference of two models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from t0train.core.bootstrap import Difference, Scored, paired_difference
from t0train.core.errors import UserError
from t0train.core.hashing import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa

Items: TypeAlias = dict[tuple[str, str], dict[str, Scored]]
"""By dataset and split: for each task the rows and their scores."""

_FILES = {"scores.parquet": "right", "generations.parquet": "score"}
"""With the column that holds an item's score."""

_COLUMNS = {"dataset": "string", "split": "string", "task": "string", "row": "int64"}


def read_items(folder: Path, digests: Mapping[str, str]) -> Items:
    """All items of an evaluation folder; empty if it holds no Parquet file.

    Args:
        folder: where results.json lies.
        digests: SHA-256 of the Parquet files, as results.json names them.

    Raises:
        UserError: a file that is damaged, or is not the one that results.json names.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: Items = {}
    for name, column in _FILES.items():
        path = folder / name
        if not path.is_file() and name not in digests:
            continue
        _check_digest(path, digests.get(name))
        try:
            table = pq.read_table(path, columns=[*_COLUMNS, column])
            table = table.cast(pa.schema([*_COLUMNS.items(), (column, "float64")]))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        _add(found, table, column, path)
    return found


def _check_digest(path: Path, expected: str | None) -> None:
    if not path.is_file():
        what = "is missing, but the results.json beside it names it"
    elif expected is None:
        what = "is not named by the results.json beside it"
    elif file_sha256(path) != expected:
        what = "is not the file that the results.json beside it names (other SHA-256)"
    else:
        return
    raise UserError(f"{path} {what}: it is of another evaluation or was changed; evaluate again with `t0train eval`.")


def _add(found: Items, table: pa.Table, column: str, path: Path) -> None:
    keys = [table[name].to_numpy(zero_copy_only=False) for name in ("dataset", "split", "task")]
    rows, scores = table["row"].to_numpy(), table[column].to_numpy()
    if any(table[name].null_count for name in table.column_names):
        raise UserError(f"{path} is damaged: it holds empty cells.")
    if not ((scores >= 0) & (scores <= 1)).all() or (rows < 0).any():
        raise UserError(f"{path} is damaged: scores are between 0 and 1, rows not negative.")
    changes = np.zeros(len(rows), dtype=bool)
    for values in keys:
        changes[1:] |= values[1:] != values[:-1]
    for part in np.split(np.arange(len(rows)), np.flatnonzero(changes)):
        if len(part):
            dataset, split, task = (str(values[part[0]]) for values in keys)
            tasks = found.setdefault((dataset, split), {})
            if task in tasks or len(np.unique(rows[part])) < len(part):
                raise UserError(f"{path} is damaged: a row of {dataset} {split} stands twice under task {task}.")
            tasks[task] = (rows[part], scores[part])


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
