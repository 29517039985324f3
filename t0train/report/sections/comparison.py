"""Runs beside each other: differences from the first one, on the same rows under the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from t0train.core.errors import UserError
from t0train.core.hashing import file_sha256
from t0train.core.run_folder import RunFolder
from t0train.report.elements import Part, Sentences, Table
from t0train.report.run_data import RunData, suites
from t0train.results.display import with_interval
from t0train.results.results_json import Difference, EvalResults, GeneratedScore, RankedScore
from t0train.results.statistics import Scored, paired_difference

if TYPE_CHECKING:
    import pyarrow as pa

_HEADER = ("dataset", "split", "run", "prompts", "rows", "median", "mean", "median: 0 outside")
_EXPLAINED = (
    "Differences in points; brackets hold 95 % intervals of a paired bootstrap: every replicate draws rows, the same "
    "ones for both runs and all prompts. They say how sure the difference is for these prompts and these trained "
    "weights, not for another training seed. The last column is about the interval of the median alone, whatever that "
    "of the mean holds. Every interval is for its dataset alone, nothing is corrected for their number: where two runs "
    "are alike on all of twenty datasets, expect 0 to be outside for one of them."
)

Items: TypeAlias = dict[tuple[str, str], dict[str, Scored]]
"""By dataset and split: for each task the rows and their scores."""

_FILES = {"scores.parquet": "right", "generations.parquet": "score"}
"""With the column that holds an item's score."""

_COLUMNS = {"dataset": "string", "split": "string", "task": "string", "row": "int64"}


Entry: TypeAlias = RankedScore | GeneratedScore


class _Compared(NamedTuple):
    """Lines of the table, and what to say about what is not in it."""

    rows: list[tuple[str, ...]]
    remarks: list[str]


def comparison(runs: Sequence[RunData]) -> list[Part]:
    """Every run minus the first one, on the rows and prompts that both were scored on, and what is not compared."""
    parts: list[Part] = []
    for suite in suites(runs):
        base, *others = [run for run in runs if suite in run.results]
        compared = [_against(run, base, suite) for run in others]
        if rows := [row for one in compared for row in one.rows]:
            parts.append(Table(_HEADER, rows, title=f"Suite {suite}: points more than {base.name}", names=3))
        if remarks := [remark for one in compared for remark in one.remarks]:
            parts.append(Sentences(remarks))
    return [*parts, Sentences([_EXPLAINED])] if any(isinstance(part, Table) for part in parts) else parts


def _against(run: RunData, base: RunData, suite: str) -> _Compared:
    ours, theirs = (_entries(one.results[suite]) for one in (run, base))
    our_items, their_items = (_items(one, suite) for one in (run, base))
    same_words = any(_same_prompts(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    rows: list[tuple[str, ...]] = []
    reasons: dict[str, list[str]] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        (dataset, split, _), entry, other = key, ours.get(key), theirs.get(key)
        if entry is None or other is None:
            reasons.setdefault("only one of the two was scored on it", []).append(f"{dataset} {split}")
            continue
        if reason := _why_not(entry, other):
            reasons.setdefault(reason, []).append(dataset)
            continue
        tasks, other_words = _tasks(entry, other, same_words)
        if other_words:
            reasons.setdefault("prompts with other texts, choices or renderer", []).append(
                f"{dataset} ({', '.join(other_words)})"
            )
        found = paired(
            {task: scored for task, scored in our_items.get((dataset, split), {}).items() if task in tasks},
            their_items.get((dataset, split), {}),
            run.results[suite].seed,
        )
        if found is None:
            reasons.setdefault("no row is common to both under the same prompt", []).append(dataset)
            continue
        prompts, difference = found
        low, high = difference.median_interval
        rows.append(
            (
                *(dataset, split, run.name, f"{prompts}", f"{difference.items:,}"),
                with_interval(difference.median, difference.median_interval),
                with_interval(difference.mean, difference.mean_interval),
                "yes" if low > 0 or high < 0 else "no",
            )
        )
    pair, remarks = f"{run.name} and {base.name}, {suite}", []
    if rows and not same_words:
        remarks.append(
            f"{pair}: no prompt has the same tokens in both: vocabularies (or all templates) differ, and prompts are "
            "paired by their names."
        )
    if rows:
        remarks += _other_draws(pair, run.results[suite], base.results[suite])
    remarks += [f"{pair}, not compared: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return _Compared(rows, remarks)


def _items(run: RunData, suite: str) -> Items:
    return read_items(RunFolder(run.folder).results(suite), run.results[suite].files)


def _entries(results: EvalResults) -> dict[tuple[str, str, type[Entry]], Entry]:
    """The entries of datasets by (dataset, split, whether ranked or generated)."""
    return {(*entry.key, type(entry)): entry for entry in results.scored}


def _why_not(entry: Entry, other: Entry) -> str:
    """Why the rows of a dataset cannot be paired with those of the other run; empty if they can."""
    if not entry.revision or not other.revision:
        return "results of an earlier version do not say which rows were scored: evaluate again"
    if entry.revision != other.revision:
        return "the rows are different ones: other files, or an older or newer state of them"
    if _measure(entry) != _measure(other):
        return "answers were judged in different ways (metric, normalise)"
    return ""


def _measure(entry: Entry) -> str:
    return entry.metric if isinstance(entry, GeneratedScore) else entry.normalise


def _same_prompts(entry: Entry, other: Entry) -> set[str]:
    """Tasks whose rows, templates and vocabulary are the same."""
    known = {prompt.task: prompt.identity for prompt in other.prompts}
    return {one.task for one in entry.prompts if one.identity and one.identity == known.get(one.task)}


def _tasks(entry: Entry, other: Entry, same_words: bool) -> tuple[set[str], list[str]]:
    """The tasks that ask both runs the same, and the names of the prompts that do not.

    A prompt's identity holds the vocabulary, too: between models of different vocabularies no two are equal, and names
    have to do.
    """
    both = {prompt.task for prompt in entry.prompts} & {prompt.task for prompt in other.prompts}
    same = _same_prompts(entry, other) if same_words else both
    return same, [prompt.name for prompt in entry.prompts if prompt.task in both - same]


def _other_draws(pair: str, ours: EvalResults, theirs: EvalResults) -> Iterator[str]:
    """Say so where the two evaluations drew their rows differently."""
    draws = [_draw(results) for results in (ours, theirs)]
    if draws[0] != draws[1]:
        yield f"{pair}: scored on {draws[0]}, and on {draws[1]}; compared on the rows that both have."


def _draw(results: EvalResults) -> str:
    limit = results.limit
    return (f"at most {limit:,} rows of each dataset" if limit else "all rows") + f" (seed {results.seed})"


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
