"""Figures as text, and what a reader of the figures of a dataset should know: the same on a terminal and in reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t0train.results.results_json import (
    DatasetDifference,
    GeneratedPromptScore,
    GeneratedScore,
    Overlap,
    RankedPromptScore,
    RankedScore,
    Selection,
)

NOTHING = "-"
"""Shown in a table where there is no value."""
_PART = "applies to a part of the records"
_NO_GOLD = "the right answer is no choice"
_CONSTANT = "the same choice is right everywhere"
_ALL_WRONG = "answered wrongly"


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for nothing."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """A percentage with its interval in brackets."""
    if interval is None:
        return percent(value)
    return f"{percent(value)} [{percent(interval[0])}, {percent(interval[1])}]"


def selection_table(selection: Selection) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each compared checkpoint with its mean over datasets and their medians over prompts, in %."""
    datasets = list(selection.candidates[0].medians)
    rows = [
        [f"{one.step:,}", percent(one.score), *(percent(one.medians.get(key)) for key in datasets)]
        for one in selection.candidates
    ]
    return ["step", "mean", *datasets], rows


def difference_cells(found: DatasetDifference) -> tuple[str, str, str]:
    """Number of items, median and mean of a difference between datasets, in points."""
    median, mean = (found.median, found.median_interval), (found.mean, found.mean_interval)
    return f"{found.items:,}", with_interval(*median), with_interval(*mean)


def overlap_counts(found: Overlap) -> tuple[str, str, str, str]:
    """Records of a dataset: all, those too short, and those that share one n-gram, or many, with training ones."""
    records, short, touched, overlapping = (
        f"{number:,}" for number in (found.records, found.short, found.touched, found.overlapping)
    )
    return (
        (records, short, NOTHING, NOTHING) if found.short == found.records else (records, short, touched, overlapping)
    )


def overlap_sources(found: Overlap, most: int | None = None) -> str:
    """The training datasets that records are shared with, `most` of them."""
    if found.short == found.records:
        return NOTHING
    return ", ".join(f"{key} ({number:,})" for key, number in list(found.sources.items())[:most]) or "none"


class PromptRemark(NamedTuple):
    """One kind of remark on a dataset: under how many of its prompts, on how many examples, of how many."""

    dataset: str
    split: str
    text: str
    prompts: str
    examples: str


def prompt_remarks(entry: RankedScore | GeneratedScore) -> Iterator[PromptRemark]:
    """The remarks on the prompts of one dataset, each kind once: no error, but odd."""
    counts: dict[str, list[tuple[int, int]]] = {}  # by remark: (number, of) for each prompt that it is about
    for prompt in entry.prompts:
        if prompt.records < entry.records:
            counts.setdefault(_PART, []).append((prompt.records, entry.records))
        for text, number in {**_of_figures(prompt), **prompt.remarks}.items():
            if number:
                counts.setdefault(text, []).append((number, prompt.records))
    for text, numbers in counts.items():
        spans = (_span(part) for part in zip(*numbers, strict=True))
        prompts = f"{len(numbers)} of {len(entry.prompts)}"
        yield PromptRemark(entry.dataset, entry.split, text, prompts, " of ".join(spans))


def _of_figures(prompt: RankedPromptScore | GeneratedPromptScore) -> dict[str, int]:
    """Why a figure of a ranked prompt is 0 or 100 %; nothing for a prompt whose answers are written."""
    if isinstance(prompt, GeneratedPromptScore):
        return {}
    records, no_gold = prompt.records, prompt.gold_not_in_choices
    is_constant = records > 1 and prompt.majority == 1
    is_all_wrong = no_gold < records and prompt.accuracy == 0
    return {_NO_GOLD: no_gold, _CONSTANT: records * is_constant, _ALL_WRONG: records * is_all_wrong}


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
