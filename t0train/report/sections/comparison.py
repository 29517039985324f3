"""Comparisons, all paired: runs with the first one, datasets with each other, the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from t0train.report.page import PageSection, PageTable, Part, Sentences
from t0train.report.run_data import RunData, results_of, suites
from t0train.results.display import difference_cells, selection_table, with_interval
from t0train.results.results_json import Difference, EvalResults, GeneratedScore, RankedScore
from t0train.results.statistics import ItemScores, paired_difference

_HEADER = ("dataset", "split", "run", "prompts", "records", "median", "mean", "median: 0 outside")
_EXPLAINED = (
    "Differences in points; brackets hold 95 % intervals of a paired bootstrap: every replicate draws records, the "
    "same ones for both runs and all prompts. They say how sure the difference is for these prompts and these trained "
    "weights, not for another training seed. The last column is about the interval of the median alone, whatever that "
    "of the mean holds. Every interval is for its dataset alone, nothing is corrected for their number: where two runs "
    "are alike on all of twenty datasets, expect 0 to be outside for one of them."
)

Entry: TypeAlias = RankedScore | GeneratedScore


class _Compared(NamedTuple):
    """Lines of the table, and what to say about what is not in it."""

    rows: list[tuple[str, ...]]
    remarks: list[str]


def comparison_section(runs: Sequence[RunData]) -> PageSection:
    """Every run minus the first one, on the records and prompts that both were scored on, and what is not compared."""
    parts: list[Part] = []
    for suite in suites(runs):
        base, *others = [run for run in runs if suite in run.results]
        compared = [_compare_runs(run, base, suite) for run in others]
        if rows := [row for one in compared for row in one.rows]:
            parts.append(PageTable(_HEADER, rows, title=f"Suite {suite}: points more than {base.name}", names=3))
        if remarks := [remark for one in compared for remark in one.remarks]:
            parts.append(Sentences(remarks))
    explained = [Sentences([_EXPLAINED])] if any(isinstance(part, PageTable) for part in parts) else []
    return PageSection("Comparison", [*parts, *explained])


def _compare_runs(run: RunData, base: RunData, suite: str) -> _Compared:
    ours, theirs = (_entries_by_dataset(one.results[suite]) for one in (run, base))
    our_items, their_items = (one.items(suite) for one in (run, base))
    same_words = any(_same_prompts(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    rows: list[tuple[str, ...]] = []
    reasons: dict[str, list[str]] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        (dataset, split, _), entry, other = key, ours.get(key), theirs.get(key)
        if entry is None or other is None:
            reasons.setdefault("only one of the two was scored on it", []).append(f"{dataset} {split}")
            continue
        if reason := _why_not_comparable(entry, other):
            reasons.setdefault(reason, []).append(dataset)
            continue
        tasks, other_words = _common_tasks(entry, other, same_words)
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
            reasons.setdefault("no record is common to both under the same prompt", []).append(dataset)
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
        remarks += _draw_remarks(pair, run.results[suite], base.results[suite])
    remarks += [f"{pair}, not compared: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return _Compared(rows, remarks)


def _entries_by_dataset(results: EvalResults) -> dict[tuple[str, str, type[Entry]], Entry]:
    """The entries of datasets by (dataset, split, whether ranked or generated)."""
    return {(*entry.key, type(entry)): entry for entry in results.scored}


def _why_not_comparable(entry: Entry, other: Entry) -> str:
    """Why the records of a dataset cannot be paired with those of the other run; empty if they can."""
    if not entry.revision or not other.revision:
        return "results of an earlier version do not say which records were scored: evaluate again"
    if entry.revision != other.revision:
        return "the records are different ones: other files, or an older or newer state of them"
    if _measure(entry) != _measure(other):
        return "answers were judged in different ways (metric, normalise)"
    return ""


def _measure(entry: Entry) -> str:
    return entry.metric if isinstance(entry, GeneratedScore) else entry.normalise


def _same_prompts(entry: Entry, other: Entry) -> set[str]:
    """Tasks whose records, templates and vocabulary are the same."""
    known = {prompt.task: prompt.identity for prompt in other.prompts}
    return {one.task for one in entry.prompts if one.identity and one.identity == known.get(one.task)}


def _common_tasks(entry: Entry, other: Entry, same_words: bool) -> tuple[set[str], list[str]]:
    """The tasks that ask both runs the same, and the names of the prompts that do not.

    A prompt's identity holds the vocabulary, too: between models of different vocabularies no two are equal, and names
    have to do.
    """
    both = {prompt.task for prompt in entry.prompts} & {prompt.task for prompt in other.prompts}
    same = _same_prompts(entry, other) if same_words else both
    return same, [prompt.name for prompt in entry.prompts if prompt.task in both - same]


def _draw_remarks(pair: str, ours: EvalResults, theirs: EvalResults) -> Iterator[str]:
    """Say so where the two evaluations drew their records differently."""
    draws = [_describe_draw(results) for results in (ours, theirs)]
    if draws[0] != draws[1]:
        yield f"{pair}: scored on {draws[0]}, and on {draws[1]}; compared on the records that both have."


def _describe_draw(results: EvalResults) -> str:
    limit = results.limit
    return (f"at most {limit:,} records of each dataset" if limit else "all records") + f" (seed {results.seed})"


def paired(first: dict[str, ItemScores], second: dict[str, ItemScores], seed: int) -> tuple[int, Difference] | None:
    """Number of shared prompts, and the first model minus the second on the items that both have under these.

    Equal tasks and record numbers must mean the same item.

    Returns:
        None if they share no item.
    """
    pairs = []
    for task in sorted(first.keys() & second.keys()):  # sums of floats depend on their order: it must not be a set's
        (records, scores), (others, other_scores) = first[task], second[task]
        _, here, there = np.intersect1d(records, others, assume_unique=True, return_indices=True)
        if len(here):
            pairs.append(((records[here], scores[here]), (others[there], other_scores[there])))
    if not pairs:
        return None
    return len(pairs), paired_difference([one for one, _ in pairs], [other for _, other in pairs], seed)


def dataset_differences_section(runs: Sequence[RunData]) -> PageSection:
    """Differences between datasets, as suites define them."""
    rows = [
        (entry.name, entry.of, entry.minus, run.name, *difference_cells(entry))
        for suite in suites(runs)
        for run, results in results_of(runs, suite)
        for entry in results.differences
    ]
    header = ("difference", "of", "minus", "run", "records", "median", "mean")
    table = PageTable(header, rows, title="In points, with 95 % intervals of a paired bootstrap over records", names=4)
    return PageSection("Differences between datasets", [table] if rows else [])


def checkpoints_section(runs: Sequence[RunData]) -> PageSection:
    """The checkpoints of a run that were compared, and the selected one."""
    parts: list[Part] = []
    for run in runs:
        for suite, selection in run.selections.items():
            header, rows = selection_table(selection)
            parts.append(PageTable(header, rows, title=f"{run.name}, {suite}: median over prompts in %"))
            left_out = [f"left out: {key}: {reason}" for key, reason in selection.left_out.items()]
            parts.append(Sentences([f"Step {selection.step:,} was selected: {selection.rule}.", *left_out]))
    return PageSection("Checkpoints compared", parts)
