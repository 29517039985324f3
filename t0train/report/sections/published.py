"""Runs compared with results that others have published on T0's suites (published.csv).

Values that were read in the source are shown as published; those that are only remembered are marked and must be looked
up before they are quoted.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from t0train.report.page import PageSection, PageTable, Part, Sentences
from t0train.report.run_data import RunData, suites
from t0train.results.display import NOTHING, percent, with_interval
from t0train.results.results_json import DatasetDifference, GeneratedScore, RankedScore

_STANDING = {"yes": "as published", "second hand": "quoted second hand", "no": "recalled, not read"}


class Published(NamedTuple):
    """A model on a dataset, or on the difference of two datasets. Values are fractions of 1.

    Attributes:
        model: its name.
        dataset: key of the dataset.
        minus: key of the dataset that is subtracted; empty for none.
        metric: accuracy, or contains (the noun occurs in what the model writes).
        median: over prompts.
        mean: over prompts.
        prompts: how many, as far as known.
        standing: as published, quoted second hand, or recalled.
        source: where it was read.
        note: what to know about it.
    """

    model: str
    dataset: str
    minus: str
    metric: str
    median: float | None
    mean: float | None
    prompts: str
    standing: str
    source: str
    note: str


class _Line(NamedTuple):
    """A line of the file: one statistic, in %."""

    model: str
    dataset: str
    minus: str
    metric: str
    statistic: str
    value: str
    prompts: str
    read: str
    source: str
    note: str


@lru_cache(maxsize=1)
def published_results() -> Sequence[Published]:
    """All of them, in the order of the file."""
    found: dict[tuple[str, ...], list[_Line]] = {}
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as stream:
        for values in csv.DictReader(stream):
            line = _Line(**values)
            # by source, too: what is remembered must not hide what was read elsewhere; and by the set of prompts
            key = (line.model, line.dataset, line.minus, line.source, line.prompts)
            found.setdefault(key, []).append(line)
    return [_published(lines) for lines in found.values()]


def _published(lines: Sequence[_Line]) -> Published:
    """The statistics of one model on one dataset."""
    first, note = lines[0], ""
    for line in lines:
        if line.note not in note:
            note = "; ".join(filter(None, [note, line.note]))
    statistics = {line.statistic: float(line.value) / 100 for line in lines}
    return Published(
        model=first.model,
        dataset=first.dataset,
        minus=first.minus,
        metric=first.metric,
        median=statistics.get("median"),
        mean=statistics.get("mean"),
        prompts=first.prompts,
        standing=_STANDING[first.read],
        source=first.source,
        note=note,
    )


def published_on(dataset: str, minus: str = "") -> list[Published]:
    """The published results on a dataset, or on the difference of two."""
    return [row for row in published_results() if (row.dataset, row.minus) == (dataset, minus)]


def published_section(runs: Sequence[RunData]) -> PageSection:
    """For each suite a table of our runs and of published models, dataset by dataset."""
    return PageSection("Published results", _tables(runs))


def _tables(runs: Sequence[RunData]) -> list[Part]:
    parts: list[Part] = []
    for suite in suites(runs):
        groups: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}  # by name, dataset, and dataset subtracted
        for results, run in ((run.results[suite], run) for run in runs if suite in run.results):
            for entry in results.scored:
                groups.setdefault((entry.dataset, entry.dataset, ""), []).append(_run_row(run, entry))
            for one in results.differences:
                groups.setdefault((one.name, one.of, one.minus), []).append(_difference_row(run, one))
        rows: list[tuple[str, ...]] = []
        for (name, dataset, minus), own in groups.items():
            if published := published_on(dataset, minus):
                rows += [*own, *(_published_row(name, row) for row in published)]
        if rows:
            header = ("dataset", "model", "standing", "prompts", "median", "mean", "source and note")
            parts.append(PageTable(header, rows, title=f"Suite {suite}, in %", names=3, notes=1, folded=True))
    if parts:
        parts.append(
            Sentences(
                [
                    '"As published" was read in the source. "Recalled, not read" comes from memory of the paper\'s '
                    "appendix: look it up before quoting it. Published values are of whole splits, ours of the records "
                    "that are given."
                ]
            )
        )
    return parts


def _run_row(run: RunData, entry: RankedScore | GeneratedScore) -> tuple[str, ...]:
    median = with_interval(entry.median, entry.interval)
    mean = with_interval(entry.mean, entry.mean_interval)
    if isinstance(entry, GeneratedScore):
        measure = [entry.metric]
    else:
        measure = [] if entry.normalise == "sum" else [f"normalise: {entry.normalise}"]
    note = "; ".join([f"{entry.records:,} records of {entry.split}", *measure])
    return (entry.dataset, run.name, "this report", f"{len(entry.prompts)}", median, mean, note)


def _difference_row(run: RunData, entry: DatasetDifference) -> tuple[str, ...]:
    median = with_interval(entry.median, entry.median_interval)
    mean = with_interval(entry.mean, entry.mean_interval)
    return (entry.name, run.name, "this report", NOTHING, median, mean, f"{entry.items:,} records")


def _published_row(name: str, row: Published) -> tuple[str, ...]:
    measure = row.metric if row.metric != "accuracy" else ""
    note = "; ".join(filter(None, [row.source, measure, row.note]))
    return (name, row.model, row.standing, row.prompts or NOTHING, percent(row.median), percent(row.mean), note)
