"""From a configuration to a mixture: its tasks, and how often each of them is drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t0train.config.schema import DataConfig, MixtureConfig, MixtureOverrides
from t0train.core.errors import UserError, nearest
from t0train.core.hashing import content_hash, derive_seed
from t0train.mixture.definition import Definition, read_definition
from t0train.mixture.rates import RATES
from t0train.mixture.table import TaskSummary, summarise_tasks
from t0train.prompts import load_templates
from t0train.tasks import (
    Dataset,
    Task,
    list_missing,
    load_catalogue,
    missing_tables,
    open_table,
    refuse_equal_names,
    training_split,
)
from t0train.tasks.catalogue import read_catalogue

_NEVER = 1e-9


@dataclass(frozen=True, eq=False)
class Mixture:
    """Tasks and their sampling probabilities.

    Attributes:
        name: the mixture's name; with the hash's beginning where a run changes it.
        description: one sentence, from its file.
        tasks: sorted by name.
        rates: [tasks], as the rate function gives them.
        probabilities: [tasks], rates over their sum.
        templates: how many templates each dataset (by key) has in all, used or not.
        rates_from: `catalogue` (its train_size) or `records` (those available): the sizes behind the rates.
        hash: content hash of task names, template texts and rates: the identity of the sampling.
        remarks: what a user should know, e.g. what was dropped.
        dropped: keys of the datasets that are left out as no records of them are available (data.missing: drop).
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    rates: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    templates: Mapping[str, int]
    rates_from: str
    hash: str
    remarks: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets of the tasks, each once, in the order of the tasks."""
        return tuple({task.dataset.key: task.dataset for task in self.tasks}.values())

    def weights(self) -> dict[str, float]:
        """Probability that an example comes from a dataset, by dataset key."""
        total: dict[str, float] = defaultdict(float)
        for task, probability in zip(self.tasks, self.probabilities, strict=True):
            total[task.dataset.key] += float(probability)
        return dict(total)

    def table(
        self,
        steps: int | None = None,
        examples_per_step: float | None = None,
        records: Mapping[str, int] | None = None,
        mean_tokens: Mapping[str, tuple[float, float]] | None = None,
    ) -> list[TaskSummary]:
        """One row per task: what it is, how often it is drawn, and how often each of its examples will be seen.

        Args:
            steps: length of a run; with `examples_per_step` it gives the expected epochs.
            examples_per_step: examples (not packed rows) per step: packed rows times the mean examples of a row.
            records: available records by dataset key; epochs count these where given, else the catalogue's train_size.
            mean_tokens: mean input and target tokens by task name, where prepared.
        """
        examples = steps * examples_per_step if steps and examples_per_step else None
        return summarise_tasks(self.tasks, self.rates, self.probabilities, examples, records or {}, mean_tokens or {})


def load_mixture(name_or_path: str = "t0") -> Mixture:
    """The mixture of that name or file, with default settings: for notebooks. Raises as `build_mixture`."""
    return build_mixture(MixtureConfig(name=name_or_path), DataConfig())


def build_mixture(config: MixtureConfig, data: DataConfig) -> Mixture:
    """The mixture that a run trains on.

    Looks for records only where it must: with `data.missing: drop` unavailable datasets are left out, and with
    `rates_from: records` the available records are counted. Otherwise `check_sources` reports what is missing.

    Args:
        config: which mixture, and the run's changes on it.
        data: catalogue, template folders, splits and source.

    Raises:
        UserError: unknown mixture, dataset, template or pattern; no task left; sizes that the rates need are unknown.
    """
    definition = read_definition(config)
    tasks, templates, remarks = _select(definition, data, config.prompts_seed)
    datasets = {task.dataset.key: task.dataset for task in tasks}
    absent = _absent(datasets.values(), config, data)
    sizes = {key: dataset.train_size for key, dataset in datasets.items()}
    if config.rates_from == "records":
        sizes |= {key: _count_records(dataset, data) for key, dataset in datasets.items() if key not in absent}
    factors = scale_factors(tasks, [change.scale for change in definition.changes])
    rates = np.array([_rate(task, sizes, templates, definition, absent) for task in tasks]) * factors
    present = np.array([task.dataset.key not in absent for task in tasks], bool)
    if not present.any():
        raise UserError(
            f"the mixture {definition.name!r} holds no task: loosen mixture.include, exclude or prompts, or see to its"
            " records (data.source, data.missing)."
        )
    if absent:
        lost = rates[~present].sum() / rates.sum()
        remarks.append(
            f"dropped, as no records are available (data.missing: drop): {', '.join(sorted(absent))};"
            f" {lost:.1%} of the mixture's weight"
        )
    tasks, rates = [task for task in tasks if task.dataset.key not in absent], rates[present]
    remarks += _check_range(tasks, rates)
    identity = content_hash(
        [[task.name, task.template.fingerprint, rate] for task, rate in zip(tasks, rates.tolist(), strict=True)]
    )
    changed = config != MixtureConfig(name=config.name) or bool(absent)
    return Mixture(
        name=f"{definition.name}-{identity[:8]}" if changed else definition.name,
        description=definition.description,
        tasks=tuple(tasks),
        rates=rates,
        probabilities=rates / rates.sum(),
        templates={task.dataset.key: templates[task.dataset.key] for task in tasks},
        rates_from=config.rates_from,
        hash=identity,
        remarks=tuple(remarks),
        dropped=tuple(sorted(absent)),
    )


def _select(definition: Definition, data: DataConfig, seed: int) -> tuple[list[Task], dict[str, int], list[str]]:
    """The mixture's tasks by name, the number of all templates of each dataset, and remarks."""
    tasks: list[Task] = []
    templates: dict[str, int] = {}
    folders = [Path(folder) for folder in data.templates]
    for dataset in _datasets(definition, data):
        name, subset = dataset.origin
        found = load_templates(name, subset or None, folders)
        templates[dataset.key] = len(found)
        tasks += [Task.of(dataset, template) for template in found.values()]
    for change in definition.changes:
        tasks = filter_tasks(tasks, change)
    tasks, without = choose_prompts(tasks, definition.prompts, seed)
    tasks.sort(key=lambda task: task.name)
    refuse_equal_names(tasks)
    return tasks, templates, [f"left out, having no original-task prompt: {', '.join(without)}"] if without else []


def _datasets(definition: Definition, data: DataConfig) -> list[Dataset]:
    """Where the mixture starts: T0's datasets of its stages, and the user's own if it says `catalogue`."""
    extra = Path(data.catalogue) if data.catalogue else None
    catalogue = load_catalogue(extra)
    for key in data.splits:
        if key not in catalogue:
            raise UserError(f"data.splits names {key!r}, no dataset of the catalogue; {nearest(key, catalogue)}")
    keys = {key for key, dataset in catalogue.items() if dataset.stage and dataset.stage in definition.stages}
    if "catalogue" in definition.stages:
        if extra is None:
            raise UserError(
                f"the mixture {definition.name!r} takes the datasets of data.catalogue, which is empty;"
                " give the path of a CSV file with your datasets."
            )
        keys |= {key for key, dataset in read_catalogue(extra).items() if dataset.stage or not dataset.held_out}
    return [dataset for key, dataset in catalogue.items() if key in keys]


def _check_range(tasks: Sequence[Task], rates: NDArray[np.float64]) -> list[str]:
    """Refuse rates that overflow (or vanish), alone or in their sum; remark on tasks that no run will ever draw."""
    with np.errstate(over="ignore"):
        total = rates.sum()
    extreme = int(np.argmin(rates)) if rates.min() <= 0 else int(np.argmax(rates))
    if rates.min() <= 0 or not np.isfinite(total):
        raise UserError(
            f"the rate of {tasks[extreme].name} comes to {rates[extreme]:g}, beyond what can be calculated with: "
            "choose factors of mixture.scale (they multiply) and a mixture.temperature nearer to 1."
        )
    rare = [task.name for task, rate in zip(tasks, rates, strict=True) if rate < _NEVER * total]
    if not rare:
        return []
    return [
        f"{len(rare)} of {len(tasks)} tasks are drawn less than once in a billion examples, e.g. {rare[0]}: see "
        "mixture.scale and mixture.temperature"
    ]


def _absent(datasets: Iterable[Dataset], config: MixtureConfig, data: DataConfig) -> set[str]:
    """Keys of the datasets that are to be left out, as their records are not available."""
    if data.missing == "error" and config.rates_from == "catalogue":
        return set()
    missing = missing_tables(datasets, data.splits, data.source)
    if missing and data.missing == "error":
        reasons = list_missing([(table.dataset.key, table.split, table.reason) for table in missing])
        raise UserError(f"mixture.rates_from is `records`, but records are missing:\n{reasons}")
    return {table.dataset.key for table in missing}


def _count_records(dataset: Dataset, data: DataConfig) -> int:
    return open_table(dataset, training_split(dataset, data.splits), data.source).num_records


def _rate(
    task: Task,
    sizes: Mapping[str, int | None],
    templates: Mapping[str, int],
    definition: Definition,
    absent: Container[str],
) -> float:
    key = task.dataset.key
    size = sizes[key]
    if size is None and definition.rate != "equal" and key not in absent:
        raise UserError(
            f"the rate {definition.rate!r} needs the size of {key}, but the catalogue has no train_size for it;"
            " fill it in (data.catalogue), or use mixture.rates_from=records or mixture.rate=equal."
        )
    rate = RATES[definition.rate](size or 0, templates[key], definition.cap, definition.temperature)
    if rate <= 0 and key not in absent:
        raise UserError(
            f"the rate of {key} is 0: mixture.cap {definition.cap} is below its {templates[key]} templates."
        )
    return rate


def matches(pattern: str, task: Task) -> bool:
    """Whether a shell pattern (`glue/*`, `summarization`, `imdb_*`) fits the dataset, its family or the task's name."""
    return any(fnmatchcase(name, pattern) for name in _names(task))


def _names(task: Task) -> tuple[str, ...]:
    dataset = task.dataset
    return dataset.key, dataset.name, dataset.family, task.name


def filter_tasks(tasks: Sequence[Task], changes: MixtureOverrides) -> list[Task]:
    """The tasks that fit some pattern of `include` (if there is one) and none of `exclude`.

    Raises:
        UserError: a pattern fits no task: a misspelt name must not pass for "nothing to drop".
    """
    kept = list(tasks)
    if changes.include:
        check_patterns(changes.include, kept, "include")
        kept = [task for task in kept if any(matches(pattern, task) for pattern in changes.include)]
    check_patterns(changes.exclude, kept, "exclude")
    return [task for task in kept if not any(matches(pattern, task) for pattern in changes.exclude)]


def check_patterns(patterns: Iterable[str], tasks: Sequence[Task], key: str) -> None:
    """Raise `UserError` for a pattern that fits none of the tasks."""
    for pattern in patterns:
        if not any(matches(pattern, task) for task in tasks):
            known = {name for task in tasks for name in _names(task) if name}
            short = {name for task in tasks for name in (task.dataset.key, task.dataset.family) if name}
            hint = nearest(pattern, known)
            hint = hint if hint.startswith("did") else nearest(pattern, short)
            raise UserError(f"mixture.{key}: {pattern!r} fits no dataset, family or task of the mixture; {hint}")


def choose_prompts(tasks: Sequence[Task], prompts: str | int, seed: int) -> tuple[list[Task], list[str]]:
    """The tasks whose templates are used, and the keys of the datasets that are left without any.

    Args:
        tasks: the tasks to choose from.
        prompts: all; original (flagged as the dataset's original task); one (the first of those by template name); or a
            number k: k drawn by the seed, such that a larger k keeps the tasks of a smaller one.
        seed: decides the draw of k templates.
    """
    by_dataset: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_dataset[task.dataset.key].append(task)
    chosen = {key: _choose(group, prompts, seed) for key, group in by_dataset.items()}
    return [task for group in chosen.values() for task in group], [key for key, group in chosen.items() if not group]


def _choose(tasks: Sequence[Task], prompts: str | int, seed: int) -> list[Task]:
    if isinstance(prompts, int):
        return sorted(tasks, key=lambda task: derive_seed(seed, "prompts", task.name))[:prompts]
    if prompts == "all":
        return list(tasks)
    original = sorted((task for task in tasks if task.template.original_task), key=lambda task: task.template.name)
    return original[:1] if prompts == "one" else original


def scale_factors(tasks: Sequence[Task], scales: Iterable[Mapping[str, float]]) -> list[float]:
    """The product of all factors whose pattern fits, for each task. Raises `UserError` for a pattern that fits none."""
    factors = [1.0] * len(tasks)
    for scale in scales:
        check_patterns(scale, tasks, "scale")
        for pattern, factor in scale.items():
            factors = [
                old * factor if matches(pattern, task) else old for old, task in zip(factors, tasks, strict=True)
            ]
    return factors
