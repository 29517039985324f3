"""From a suite's YAML to tasks: which prompts of which datasets can be scored, and which rows are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t0train.config import SuiteConfig, SuiteTask
from t0train.core.errors import UserError, nearest
from t0train.core.hashing import generator
from t0train.mixture.assemble import choose_prompts
from t0train.prompts import load_templates
from t0train.results.results_json import Missing
from t0train.tasks import (
    Dataset,
    Task,
    explain_nothing_found,
    list_missing,
    missing_tables,
    open_table,
    parse_split,
    refuse_equal_names,
)
from t0train.tasks.sources import HUB

LEFT_OUT = "rows that the template leaves out"
"""Remark on a prompt that does not apply to all rows drawn."""

SINGLE_CHOICE = "examples with a single choice, right whatever the model says"
"""Remark on a prompt with such examples."""

BIG_BENCH = "bigbench"
"""Name that BIG-bench's tasks share in results, and their folder in a source."""


@dataclass(frozen=True)
class SuiteEntry:
    """One dataset and split of a suite.

    Attributes:
        asked: what the suite says about it.
        dataset: of the catalogue; a BIG-bench task is called `bigbench/<task>`.
        split: as the suite writes it, e.g. `test[:1000]`; BIG-bench has one only, `default`.
        tasks: the prompts to score, in the order of their template names; none for BIG-bench.
        left_out: templates that the suite asks for and that cannot be scored this way, with the reason.
    """

    asked: SuiteTask
    dataset: Dataset
    split: str
    tasks: tuple[Task, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def resolve_suite(
    suite: SuiteConfig, catalogue: Mapping[str, Dataset], folders: Sequence[Path] = (), seed: int = 0
) -> list[SuiteEntry]:
    """Look up every dataset and template of a suite; nothing is read but templates.

    Args:
        suite: the suite.
        catalogue: known datasets by key.
        folders: template folders that are searched before promptsource's collection.
        seed: of the draw where a suite asks for k prompts.

    Raises:
        UserError: unknown dataset or template (with the nearest names), malformed split, no prompt of the kind.
    """
    return [_resolve(asked, suite.name, catalogue, folders, seed) for asked in suite.tasks]


def _resolve(
    asked: SuiteTask, suite: str, catalogue: Mapping[str, Dataset], folders: Sequence[Path], seed: int
) -> SuiteEntry:
    if asked.kind == "bigbench":
        return SuiteEntry(asked, Dataset(BIG_BENCH, asked.dataset, family="BIG-bench"), "default")
    dataset = catalogue.get(asked.dataset)
    if dataset is None:
        raise UserError(
            f"suite {suite} names the dataset {asked.dataset!r}, which the catalogue does not have; "
            f"{nearest(asked.dataset, catalogue)} A run brings its own `catalogue` and `templates`; for a model that "
            "is exported or of the hub, write them into the suite."
        )
    parse_split(asked.split)
    ranked = asked.kind == "rank"
    templates = load_templates(*dataset.origin, folders)
    tasks = [Task.of(dataset, template) for template in templates.values()]
    fitting = [task for task in tasks if (task.template.answer_choices is not None) == ranked]
    others = [task for task in tasks if (task.template.answer_choices is not None) != ranked]
    if isinstance(asked.prompts, list):
        for name in asked.prompts:
            if name not in templates:
                raise UserError(
                    f"suite {suite} names the prompt {name!r}, which {asked.dataset} does not have; "
                    f"{nearest(name, templates)}"
                )
        chosen, left_out = (
            [task for task in group if task.template.name in asked.prompts] for group in (fitting, others)
        )
    else:
        chosen, _ = choose_prompts(fitting, asked.prompts, seed)
        left_out = choose_prompts(others, asked.prompts, seed)[0] if asked.prompts in ("all", "original") else []
    refuse_equal_names(chosen)
    if not chosen:
        names = ", ".join(repr(task.template.name) for task in fitting) or "none"
        wanted = "has answer choices, so nothing can be ranked" if ranked else "has none, so nothing is to be written"
        raise UserError(
            f"suite {suite}: no prompt of {asked.dataset} is both asked for (prompts: {asked.prompts}) and {wanted}; "
            f"prompts {'with' if ranked else 'without'} answer choices: {names}."
        )
    chosen.sort(key=lambda task: task.template.name)
    reason = "no answer choices" if ranked else "has answer choices: it is ranked, not generated"
    return SuiteEntry(asked, dataset, asked.split, tuple(chosen), {task.template.name: reason for task in left_out})


def split_missing(entries: Sequence[SuiteEntry], source: str) -> tuple[list[SuiteEntry], list[Missing]]:
    """The entries whose rows are at hand, and those that are not.

    Raises:
        UserError: none is; the message names all.
    """
    at_hand, missing = [], []
    for entry in entries:
        reason = _why_missing(entry, source)
        if reason is None:
            at_hand.append(entry)
        else:
            missing.append(Missing(dataset=entry.dataset.key, split=entry.split, reason=reason))
    if missing and not at_hand:
        reason = explain_nothing_found([entry.dataset for entry in entries], source)
        lines = list_missing([(table.dataset, table.split, reason or table.reason) for table in missing])
        raise UserError(
            f"none of the suite's {len(missing)} tables is at hand:\n{lines}\n"
            "Put them there, or choose another source (--data)."
        )
    return at_hand, missing


def _why_missing(entry: SuiteEntry, source: str) -> str | None:
    if entry.asked.kind == "bigbench":
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


def draw_rows(entry: SuiteEntry, number: int, limit: int | None, seed: int) -> NDArray[np.bool_]:
    """Which of a dataset's rows are scored, [number].

    A smaller limit's rows are among a larger one's, and datasets of one size draw the same row numbers: where rows
    correspond (WinoBias), they stay pairs.
    """
    most = min(value for value in (limit, entry.asked.limit, number) if value is not None)
    drawn = np.zeros(number, dtype=bool)
    drawn[generator(seed, "rows").permutation(number)[:most]] = True
    return drawn
