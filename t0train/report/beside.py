"""Runs beside published results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t0train.report.parts import Part, Sentences, Table
from t0train.report.published import Published, published_on
from t0train.report.runs import Run
from t0train.report.scores import NOTHING, percent, suites, with_interval


def published_beside(runs: Sequence[Run]) -> list[Part]:
    """For each suite a table of our runs and of published models, dataset by dataset."""
    parts: list[Part] = []
    for suite in suites(runs):
        groups: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}  # by name, dataset, and dataset subtracted
        for results, run in ((run.results[suite], run) for run in runs if suite in run.results):
            for entry in (*results["tasks"], *results.get("generated", ())):
                groups.setdefault((entry["dataset"], entry["dataset"], ""), []).append(_own(run, entry))
            for entry in results.get("differences", ()):
                key = (entry["name"], entry["of"], entry["minus"])
                groups.setdefault(key, []).append(_own_difference(run, entry))
        rows: list[tuple[str, ...]] = []
        for (name, dataset, minus), own in groups.items():
            if published := published_on(dataset, minus):
                rows += [*own, *(_others(name, row) for row in published)]
        if rows:
            header = ("dataset", "model", "standing", "prompts", "median", "mean", "source and note")
            parts.append(Table(header, rows, title=f"Suite {suite}, in %", names=3, notes=1, folded=True))
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
    measure = [entry["metric"]] if "metric" in entry else []
    normalise = [] if entry.get("normalise", "sum") == "sum" else [f"normalise: {entry['normalise']}"]
    note = "; ".join([f"{entry['rows']:,} rows of {entry['split']}", *measure, *normalise])
    return (entry["dataset"], run.name, "this report", f"{len(entry['prompts'])}", median, mean, note)


def _own_difference(run: Run, entry: dict[str, Any]) -> tuple[str, ...]:
    median = with_interval(entry["median"], entry["median_interval"])
    mean = with_interval(entry["mean"], entry["mean_interval"])
    return (entry["name"], run.name, "this report", NOTHING, median, mean, f"{entry['items']:,} rows")


def _others(name: str, row: Published) -> tuple[str, ...]:
    measure = row.metric if row.metric != "accuracy" else ""
    note = "; ".join(filter(None, [row.source, measure, row.note]))
    return (name, row.model, row.standing, row.prompts or NOTHING, percent(row.median), percent(row.mean), note)
