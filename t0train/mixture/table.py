"""A mixture as a table: one row per task, or per dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from t0train.tasks import Task


@dataclass(frozen=True)
class TaskSummary:
    """One task of a mixture. None: not known.

    Attributes:
        task: name of the task.
        dataset: name of the dataset.
        subset: its configuration; empty if it has none.
        template: name of the template.
        family: kind of task.
        rate: as the rate function gives it.
        probability: that an example is drawn from this task.
        records: available records.
        mean_inputs: mean input tokens, untrimmed.
        mean_targets: mean target tokens, end of sequence included.
        epochs: expected passes over the task in the run.
    """

    task: str
    dataset: str
    subset: str
    template: str
    family: str
    rate: float
    probability: float
    records: int | None
    mean_inputs: float | None
    mean_targets: float | None
    epochs: float | None


@dataclass(frozen=True)
class DatasetSummary:
    """One dataset of a mixture: sums over its tasks, and means weighted by probability. None: not known.

    Attributes:
        dataset: name of the dataset.
        subset: its configuration; empty if it has none.
        family: kind of task.
        templates: templates in the mixture.
        rate: rate of one template (the mean where templates differ).
        rate_sum: rate of the dataset.
        probability: that an example is drawn from this dataset.
        records: available records.
        mean_inputs: mean input tokens, untrimmed.
        mean_targets: mean target tokens, end of sequence included.
        epochs: expected passes over each of its tasks (the mean where they differ).
    """

    dataset: str
    subset: str
    family: str
    templates: int
    rate: float
    rate_sum: float
    probability: float
    records: int | None
    mean_inputs: float | None
    mean_targets: float | None
    epochs: float | None


def summarise_tasks(
    tasks: Sequence[Task],
    rates: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    examples: float | None,
    records: Mapping[str, int],
    mean_tokens: Mapping[str, tuple[float, float]],
) -> list[TaskSummary]:
    """One row per task; see `Mixture.table`. `examples` is the number that the whole run will draw."""
    table = []
    for task, rate, probability in zip(tasks, rates.tolist(), probabilities.tolist(), strict=True):
        dataset = task.dataset
        available = records.get(dataset.key)
        size = available or dataset.train_size
        inputs, targets = mean_tokens.get(task.name, (None, None))
        epochs = examples * probability / size if examples and size else None
        identity = (task.name, dataset.name, dataset.subset, task.template.name, dataset.family)
        table.append(TaskSummary(*identity, rate, probability, available, inputs, targets, epochs))
    return table


def by_dataset(table: Iterable[TaskSummary]) -> list[DatasetSummary]:
    """The rows of `Mixture.table` joined by dataset, the heaviest first."""

    def dataset(row: TaskSummary) -> tuple[str, str, str]:
        return row.dataset, row.subset, row.family

    joined = []
    for key, group in groupby(sorted(table, key=dataset), key=dataset):
        rows = list(group)
        rate_sum = sum(row.rate for row in rows)
        joined.append(
            DatasetSummary(
                *key,
                templates=len(rows),
                rate=rate_sum / len(rows),
                rate_sum=rate_sum,
                probability=sum(row.probability for row in rows),
                records=rows[0].records,
                mean_inputs=_mean(rows, [row.mean_inputs for row in rows]),
                mean_targets=_mean(rows, [row.mean_targets for row in rows]),
                epochs=_mean(rows, [row.epochs for row in rows]),
            )
        )
    return sorted(joined, key=lambda row: -row.probability)


def _mean(rows: Sequence[TaskSummary], values: Sequence[float | None]) -> float | None:
    """Mean weighted by probability; None as soon as one value is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return float(np.average(known, weights=[row.probability for row in rows]))
