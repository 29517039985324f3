"""Runs beside published results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t0train.report.parts import Part, Sentences, Table
from t0train.report.published import Published, published_on
from t0train.report.runs import Run
from t0train.report.scores import NOTHING, datasets, evaluated, percent, suites, with_interval


def published_beside(runs: Sequence[Run]) -> list[Part]:
    """For each suite a table of our runs and of published models, dataset by dataset."""
    parts: list[Part] = []
    for suite in suites(runs):
        rows: list[tuple[str, ...]] = []
        for dataset, split in evaluated(runs, suite):
            if published := published_on(dataset):
                rows += [
                    _own(run, datasets(run.results.get(suite))[dataset, split])
                    for run in runs
                    if (dataset, split) in datasets(run.results.get(suite))
                ]
                rows += [_others(dataset, row) for row in published]
        for run in runs:
            for entry in run.results.get(suite, {}).get("generated", []):
                if published := published_on(entry["dataset"]):
                    rows += [_own(run, entry), *(_others(entry["dataset"], row) for row in published)]
            for entry in run.results.get(suite, {}).get("differences", []):
                if published := published_on(entry["of"], entry["minus"]):
                    rows += [_own_difference(run, entry), *(_others(entry["name"], row) for row in published)]
        if rows:
            header = ("dataset", "model", "standing", "note", "prompts", "median", "mean")
            parts.append(Table(header, rows, title=f"Suite {suite}, in %", names=4, folded=True))
    if parts:
        parts.append(
            Sentences(
                [
                    '"As published" was read in the source. "Recalled, not read" comes from memory of the paper\'s '
                    "appendix: look it up before quoting it. Published values are of whole splits, ours of the rows "
                    "that are given."
                ]
            )
        )
    return parts


def _own(run: Run, entry: dict[str, Any]) -> tuple[str, ...]:
    median = with_interval(entry["median"], entry.get("interval"))
    mean = with_interval(entry["mean"], entry.get("mean_interval"))
    note = f"{entry['rows']:,} rows of {entry['split']}"
    return (entry["dataset"], run.name, "this report", note, f"{len(entry['prompts'])}", median, mean)


def _own_difference(run: Run, entry: dict[str, Any]) -> tuple[str, ...]:
    median = with_interval(entry["median"], entry["median_interval"])
    mean = with_interval(entry["mean"], entry["mean_interval"])
    return (entry["name"], run.name, "this report", f"{entry['items']:,} rows", NOTHING, median, mean)


def _others(name: str, row: Published) -> tuple[str, ...]:
    note = "; ".join(filter(None, [row.source, row.note]))
    return (name, row.model, row.standing, note, row.prompts or NOTHING, percent(row.median), percent(row.mean))
