"""Evaluation results as tables: datasets against models, and every prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from t0train.report.runs import Run

NOTHING = "-"
"""Stands in a table where there is no value."""


class Headline(NamedTuple):
    """One run on one dataset of a suite. Accuracies are fractions of 1; `untrained` is a mean over prompts."""

    suite: str
    dataset: str
    split: str
    run: str
    rows: int
    prompts: int
    chance: float
    majority: float
    untrained: float | None
    median: float
    median_interval: Sequence[float] | None
    mean: float
    mean_interval: Sequence[float] | None


def suites(runs: Sequence[Run]) -> list[str]:
    """Names of the suites that at least one run was evaluated on."""
    return sorted({suite for run in runs for suite in run.results})


def datasets(results: dict[str, Any] | None) -> dict[tuple[str, str], dict[str, Any]]:
    """The entries of a results file by (dataset, split)."""
    return {(task["dataset"], task["split"]): task for task in results["tasks"]} if results else {}


def headlines(runs: Sequence[Run]) -> list[Headline]:
    """Every (suite, dataset, run), ordered by suite, then as the suite lists its datasets, then as the runs came."""
    return [line for suite in suites(runs) for line in _of_suite(runs, suite)]


def _of_suite(runs: Sequence[Run], suite: str) -> Iterator[Headline]:
    for dataset, split in evaluated(runs, suite):
        for run in runs:
            entry = datasets(run.results.get(suite)).get((dataset, split))
            if entry is None:
                continue
            before = before_training(run, suite, entry)
            yield Headline(
                suite=suite,
                dataset=dataset,
                split=split,
                run=run.name,
                rows=entry["rows"],
                prompts=len(entry["prompts"]),
                chance=entry["chance"],
                majority=entry["majority"],
                untrained=before["mean"] if before else None,
                median=entry["median"],
                median_interval=entry.get("interval"),
                mean=entry["mean"],
                mean_interval=entry.get("mean_interval"),
            )


def before_training(run: Run, suite: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """The untrained model's entry beside that of a dataset; None if there is none, or one of other rows or prompts."""
    before = untrained_entry(run, suite, entry)
    return before if before and _question(before) == _question(entry) else None


def _question(entry: dict[str, Any]) -> tuple[object, ...]:
    """What decides whether two figures can stand beside each other: rows, prompts, and how answers are judged."""
    prompts = sorted((prompt["task"], prompt.get("identity", "")) for prompt in entry["prompts"])
    return (entry["rows"], entry.get("revision"), entry.get("normalise", "sum"), prompts)


def untrained_entry(run: Run, suite: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """The untrained model's entry for the same dataset and split, of whatever rows."""
    return datasets(run.untrained.get(suite)).get((entry["dataset"], entry["split"]))


def evaluated(runs: Sequence[Run], suite: str) -> list[tuple[str, str]]:
    """(dataset, split) pairs of a suite that any run has results for, each once, in the suite's order."""
    return list(dict.fromkeys(key for run in runs for key in datasets(run.results.get(suite))))


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for nothing."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    """A percentage with its 95 % interval in brackets."""
    if interval is None:
        return percent(value)
    return f"{percent(value)} [{percent(interval[0])}, {percent(interval[1])}]"
