"""What was trained: the runs with their starting weights and steps, keys that differ, deviations from T0."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from t0train.report.page import PageSection, PageTable, Part, Sentences
from t0train.report.run_data import RunData
from t0train.results.display import NOTHING

_LAST = 20
"""Steps at the end of a run whose mean is taken as its result: one step alone is noise."""
_NAMES = {"name", "output"}  # they differ anyway
_MOST = 30


def runs_section(runs: Sequence[RunData]) -> PageSection:
    """A line for each run, and the keys in which they differ."""
    return PageSection("Runs", [_overview(runs), *_differing_keys(runs)])


def _overview(runs: Sequence[RunData]) -> PageTable:
    rows = []
    for run in runs:
        steps, model = run.steps, run.recipe.model
        rows.append(
            (
                run.name,
                f"{model.size}, random weights" if model.init_from == "random" else model.init_from or NOTHING,
                str(run.recipe.mixture.name or NOTHING),
                run.config_hash,
                f"{steps[-1].step if steps else 0:,} of {run.recipe.train.steps:,}",
                _total([step.examples for step in steps]),
                _total([step.tokens for step in steps]),
                f"{mean(step.cross_entropy for step in steps[-_LAST:]):.4f}" if steps else NOTHING,
            )
        )
    header = ("run", "starts from", "mixture", "configuration", "steps", "examples", "target tokens", "cross-entropy")
    return PageTable(
        header, rows, names=4, title=f"Cross-entropy in nats a target token, mean of the last {_LAST} steps"
    )


def _total(counts: Sequence[int]) -> str:
    return f"{sum(counts):,}" if counts else NOTHING


def _differing_keys(runs: Sequence[RunData]) -> list[Part]:
    """A table of the keys whose values are not the same in all runs; nothing for a single run."""
    if len(runs) < 2:
        return []
    values = [dict(_leaves(run.config)) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in values for key in one) if key not in _NAMES]
    rows = [(key, *found) for key in keys if len(set(found := [one.get(key, NOTHING) for one in values])) > 1]
    if not rows:
        return [Sentences(["The configurations differ in no key but name and output."])]
    title = "Keys in which the configurations differ"
    parts: list[Part] = [
        PageTable(("key", *(run.name for run in runs)), rows[:_MOST], title=title, names=1 + len(runs))
    ]
    if len(rows) > _MOST:
        parts.append(Sentences([f"{len(rows) - _MOST} further keys differ: see `t0train config diff`."]))
    return parts


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def deviations_section(runs: Sequence[RunData]) -> PageSection:
    """A sentence for each key that differs from T0's recipe; the run is named where there are several."""
    names = [f"{run.name}: " if len(runs) > 1 else "" for run in runs]
    return PageSection("Deviations from T0", [_deviations(run, name) for run, name in zip(runs, names, strict=True)])


def _deviations(run: RunData, name: str) -> Sentences:
    if run.deviations is None:
        return Sentences([f"{name}the run folder holds no deviations.json."])
    if not run.deviations:
        return Sentences([f"{name}none; every key of the recipe has T0's value."])
    return Sentences([name + sentence for sentence in run.deviations])
