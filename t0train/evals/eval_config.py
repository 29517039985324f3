"""What is evaluated: a suite, where its records are, and which datasets, prompts and records that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t0train.config import SuiteConfig, SuiteTask, load_suite
from t0train.core.errors import UserError, nearest
from t0train.core.hashing import generator
from t0train.evals.models import ModelReference
from t0train.mixture.assemble import choose_prompts
from t0train.prompts import load_templates
from t0train.results.results_json import Missing
from t0train.tasks import (
    Dataset,
    Task,
    explain_nothing_found,
    list_missing,
    load_catalogue,
    missing_tables,
    open_table,
    parse_split,
    refuse_equal_names,
)
from t0train.tasks.sources import HUB

LEFT_OUT = "records that the template leaves out"
"""Remark on a prompt that does not apply to all records drawn."""

SINGLE_CHOICE = "examples with a single choice, right whatever the model says"
"""Remark on a prompt with such examples."""

BIG_BENCH = "bigbench"
"""Name that BIG-bench's tasks share in results, and their folder in a source."""


@dataclass(frozen=True)
class EvalConfig:
    """What a model is scored on.

    Attributes:
        suite: datasets, splits, prompts and metrics.
        source: `hub`, or a folder with the datasets' records.
        store: folder of the token store; empty for the one in the user's cache.
        catalogue: known datasets by key; default: t0train's own.
        templates: template folders that are searched before promptsource's collection.
        limit: score at most this many records of each dataset, the same ones under every prompt.
        seed: of drawn records and prompts, templates that draw at random, and the bootstrap. Not the run's: runs are
            compared on the same records.
        processes: how many share the work, each with its own copy of the model.
    """

    suite: SuiteConfig
    source: str = HUB
    store: str = ""
    catalogue: Mapping[str, Dataset] = field(default_factory=load_catalogue)
    templates: Sequence[Path] = ()
    limit: int | None = None
    seed: int = 0
    processes: int = 1

    @classmethod
    def for_model(
        cls,
        model: ModelReference,
        suite: str | SuiteConfig = "",
        *,
        source: str = "",
        store: str = "",
        limit: int | None = None,
        processes: int = 1,
    ) -> EvalConfig:
        """What `t0train eval` scores a model on: what is not given comes from the suite, else from the model's run.

        Args:
            model: what is evaluated.
            suite: a suite, its name in configs/evals/, or a YAML file; empty for the suite of the run.
            source: see `EvalConfig`; empty for that of the suite, else of the run, else the hub.
            store: see `EvalConfig`; empty for that of the run.
            limit: see `EvalConfig`.
            processes: see `EvalConfig`.

        Raises:
            UserError: no suite is named, a malformed suite or catalogue, or no such model.
        """
        model.check_exists()
        run = model.run
        suite = suite or (run.suite if run else "")
        if not suite:
            raise UserError(f"{model.explain_no_suite()}; choose one with --suite NAME (configs/evals/) or a path.")
        chosen = suite if isinstance(suite, SuiteConfig) else load_suite(suite)
        catalogue = chosen.catalogue or (run.data.catalogue if run else "")
        templates = chosen.templates or (run.data.templates if run else [])
        return cls(
            chosen,
            source=source or chosen.data or (run.data.source if run else HUB),
            store=store or (run.data.store if run else ""),
            catalogue=load_catalogue(Path(catalogue) if catalogue else None),
            templates=[Path(folder) for folder in templates],
            limit=limit,
            processes=processes,
        )

    def draw_records(self, entry: SuiteEntry, number: int) -> NDArray[np.bool_]:
        """Which of a dataset's `number` records are scored, [number].

        A smaller limit's records are among a larger one's, and datasets of one size draw the same record numbers:
        where records correspond (WinoBias), they stay pairs.
        """
        most = min(value for value in (self.limit, entry.spec.limit, number) if value is not None)
        drawn = np.zeros(number, dtype=bool)
        drawn[generator(self.seed, "rows").permutation(number)[:most]] = True
        return drawn


@dataclass(frozen=True)
class SuiteEntry:
    """One dataset and split of a suite.

    Attributes:
        spec: the suite's entry.
        dataset: of the catalogue; a BIG-bench task is called `bigbench/<task>`.
        split: as the suite writes it, e.g. `test[:1000]`; BIG-bench has one only, `default`.
        tasks: the prompts to score, in the order of their template names; none for BIG-bench.
        left_out: templates that the suite names and that cannot be scored this way, with the reason.
    """

    spec: SuiteTask
    dataset: Dataset
    split: str
    tasks: tuple[Task, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def resolve_suite(config: EvalConfig) -> list[SuiteEntry]:
    """Look up every dataset and template of a suite; nothing is read but templates.

    Raises:
        UserError: unknown dataset or template (with the nearest names), malformed split, no prompt of the kind.
    """
    return [_resolve(spec, config) for spec in config.suite.tasks]


def _resolve(spec: SuiteTask, config: EvalConfig) -> SuiteEntry:
    if spec.kind == "bigbench":
        return SuiteEntry(spec, Dataset(BIG_BENCH, spec.dataset, family="BIG-bench"), "default")
    dataset = config.catalogue.get(spec.dataset)
    if dataset is None:
        raise UserError(
            f"suite {config.suite.name} names the dataset {spec.dataset!r}, which the catalogue does not have; "
            f"{nearest(spec.dataset, config.catalogue)} A run brings its own `catalogue` and `templates`; for a model "
            "that is exported or of the hub, write them into the suite."
        )
    parse_split(spec.split)
    suite, ranked = config.suite.name, spec.kind == "rank"
    templates = load_templates(*dataset.origin, config.templates)
    tasks = [Task.of(dataset, template) for template in templates.values()]
    fitting = [task for task in tasks if (task.template.answer_choices is not None) == ranked]
    others = [task for task in tasks if (task.template.answer_choices is not None) != ranked]
    if isinstance(spec.prompts, list):
        for name in spec.prompts:
            if name not in templates:
                raise UserError(
                    f"suite {suite} names the prompt {name!r}, which {spec.dataset} does not have; "
                    f"{nearest(name, templates)}"
                )
        chosen, left_out = (
            [task for task in group if task.template.name in spec.prompts] for group in (fitting, others)
        )
    else:
        chosen, _ = choose_prompts(fitting, spec.prompts, config.seed)
        left_out = choose_prompts(others, spec.prompts, config.seed)[0] if spec.prompts in ("all", "original") else []
    refuse_equal_names(chosen)
    if not chosen:
        names = ", ".join(repr(task.template.name) for task in fitting) or "none"
        wanted = "has answer choices, so nothing can be ranked" if ranked else "has none, so nothing can be generated"
        raise UserError(
            f"suite {suite}: no prompt of {spec.dataset} is both selected (prompts: {spec.prompts}) and {wanted}; "
            f"prompts {'with' if ranked else 'without'} answer choices: {names}."
        )
    chosen.sort(key=lambda task: task.template.name)
    reason = "no answer choices" if ranked else "has answer choices: it is ranked, not generated"
    return SuiteEntry(spec, dataset, spec.split, tuple(chosen), {task.template.name: reason for task in left_out})


def split_missing(entries: Sequence[SuiteEntry], source: str) -> tuple[list[SuiteEntry], list[Missing]]:
    """The entries whose records are available, and those whose are not.

    Raises:
        UserError: none is; the message names all.
    """
    available, missing = [], []
    for entry in entries:
        reason = _why_missing(entry, source)
        if reason is None:
            available.append(entry)
        else:
            missing.append(Missing(dataset=entry.dataset.key, split=entry.split, reason=reason))
    if missing and not available:
        reason = explain_nothing_found([entry.dataset for entry in entries], source)
        lines = list_missing([(table.dataset, table.split, reason or table.reason) for table in missing])
        raise UserError(
            f"none of the suite's {len(missing)} tables is available:\n{lines}\n"
            "Put them there, or choose another source (--data)."
        )
    return available, missing


def _why_missing(entry: SuiteEntry, source: str) -> str | None:
    if entry.spec.kind == "bigbench":
        if source == HUB:
            return f"BIG-bench is read from files: choose a folder (--data) that holds {BIG_BENCH}/<task>/task.json"
        folder = Path(source, entry.dataset.key)
        return None if task_files(folder) else f"no task.json in {folder} or in a folder below it"
    if tables := missing_tables([entry.dataset], {entry.dataset.key: entry.split}, source):
        return tables[0].reason
    if source == HUB:  # only the hub can tell whether it has the split
        try:
            open_table(entry.dataset, entry.split, source)
        except UserError as error:
            return str(error)
    return None


def task_files(folder: Path) -> list[Path]:
    """A BIG-bench task's own task.json and those of its sub-tasks, one folder down."""
    return [path for path in [folder / "task.json", *sorted(folder.glob("*/task.json"))] if path.is_file()]
