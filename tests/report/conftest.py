"""Run folders written by hand, in the layout that training and evaluation write."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t0train.config import RunConfig, deviations, dump_config
from t0train.report import write_report


def results(datasets: dict[str, list[float]], chance: float = 0.5) -> dict[str, Any]:
    """A results.json: accuracies of the prompts of each dataset."""
    return {
        "model": {"name": "demo", "step": 300, "untrained": False},
        "suite": "demo",
        "source": "data",
        "limit": None,
        "seed": 0,
        "not_held_out": {},
        "tasks": [
            {
                "dataset": dataset,
                "split": "test[:200]",
                "family": "sentiment",
                "records": 200,
                "chance": chance,
                "majority": 0.525,
                "median": float(np.median(accuracies)),
                "mean": float(np.mean(accuracies)),
                "min": min(accuracies),
                "max": max(accuracies),
                "iqr": [float(value) for value in np.percentile(accuracies, [25, 75])],
                "interval": [float(np.median(accuracies)) - 0.03, float(np.median(accuracies)) + 0.03],
                "mean_interval": [float(np.mean(accuracies)) - 0.02, float(np.mean(accuracies)) + 0.02],
                "prompts": [
                    {
                        "name": f"prompt {place}",
                        "task": f"{dataset}_prompt_{place}",
                        "accuracy": accuracy,
                        "interval": [accuracy - 0.05, accuracy + 0.05],
                        "records": 200,
                        "gold_not_in_choices": 0,
                        "chance": chance,
                        "majority": 0.525,
                    }
                    for place, accuracy in enumerate(accuracies)
                ],
                "left_out": {"summarise it": "it has no answer choices"},
            }
            for dataset, accuracies in datasets.items()
        ],
    }


def step_event(step: int, tasks: dict[str, int], **values: float) -> dict[str, Any]:
    """One step event with every key of the layout."""
    return {
        "kind": "step",
        "step": step,
        "loss": 5.0 / step,
        "cross_entropy": 5.0 / step,
        "z_loss": 0.01,
        "lr": 0.01,
        "grad_norm": 1.0 + 1.0 / step,
        "update_rms": 0.8,
        "tokens": 1000,
        "examples": sum(tasks.values()),
        "rows": 4,
        "fill_inputs": 0.98,
        "fill_targets": 0.25,
        "rows_hash": "0" * 16,
        "tasks": tasks,
        **values,
    }


def make_run(
    root: Path,
    name: str = "demo",
    events: list[dict[str, Any]] | None = None,
    suites: dict[str, dict[str, Any]] | None = None,
    folder: str | None = None,
    **config: Any,
) -> Path:
    """Write a run folder below `root`; what is None is left out."""
    run = root / (folder or name)
    run.mkdir()
    resolved = RunConfig.model_validate({"name": name, **config})
    (run / "config.resolved.yaml").write_text(dump_config(resolved))
    (run / "deviations.json").write_text(json.dumps([found.as_dict() for found in deviations(resolved)]))
    if events is not None:
        (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for suite, content in (suites or {}).items():
        (run / "eval" / suite).mkdir(parents=True)
        (run / "eval" / suite / "results.json").write_text(json.dumps(content))
    return run


def markdown(folders: list[Path], out: Path) -> str:
    return write_report(folders, out).with_suffix(".md").read_text()


def section(text: str, title: str) -> str:
    """What stands under a heading."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def cells(text: str, *starts: str) -> list[str]:
    """The cells of the first line of a table that begins with these."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and tuple(found[: len(starts)]) == starts:
            return found
    raise AssertionError(f"no row {starts} in\n{text}")


WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """`make_run` in the test's own folder."""
    return partial(make_run, tmp_path)
