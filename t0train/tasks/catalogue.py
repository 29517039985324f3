"""The catalogue: every dataset that T0 was trained or evaluated on, and the user's own; and tasks made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from t0train.core.errors import UserError, nearest
from t0train.core.text import read_csv
from t0train.tasks.splits import parse_split

if TYPE_CHECKING:
    from t0train.prompts import Template

STAGES = ("BASE", "GPT_EVAL", "SGLUE")
HELD_OUT = ("BASE", "BIAS_FAIRNESS")
_NAME = re.compile(r"\w[\w.+ -]*(/\w[\w.+ -]*)*")
_LONGEST_NAME = 100  # bytes: with the template's name it becomes the name of a folder, which may have 255
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SIZE = re.compile(r"[1-9][0-9]{0,14}")


def task_name(dataset: str, subset: str, template_name: str) -> str:
    r"""T0's name of a task: `<dataset>_<subset>_<template>`, runs of other characters than `\w` and `.` become one `_`.

    Source: bigscience-workshop/t-zero, t0/seqio_tasks/utils.py (get_task_name). `\w` knows Unicode.
    """
    prefix = f"{dataset}_{subset}_" if subset else f"{dataset}_"
    return re.sub(r"[^\w.]+", "_", prefix + template_name)


@dataclass(frozen=True)
class Dataset:
    """One dataset (with one subset, if it has any): an entry of the catalogue.

    Attributes:
        name: the dataset's name in promptsource, e.g. `glue`.
        subset: its configuration there, e.g. `mrpc`; empty if it has none.
        parent: dataset whose folder and templates this one shares (ANLI's rounds share those of `anli`).
        family: kind of task, e.g. `paraphrase`.
        stage: BASE (trained on by T0), GPT_EVAL (added by T0p), SGLUE (added by T0pp), or empty.
        held_out: BASE or BIAS_FAIRNESS if T0 was judged on it, else empty.
        train_size: examples of the training split in the original run; None if unknown.
        hub_id: repository on the Hugging Face hub; empty if it cannot be had there.
        hub_config: configuration there; empty if the repository has one only.
        revision: revision there; empty for the default branch.
        train_split: split that is trained on.
        eval_split: split that is scored.
        licence: licence of the records as far as known.
        note: what to know before using it, e.g. how to obtain it.
    """

    name: str
    subset: str = ""
    parent: str = ""
    family: str = ""
    stage: str = ""
    held_out: str = ""
    train_size: int | None = None
    hub_id: str = ""
    hub_config: str = ""
    revision: str = ""
    train_split: str = "train"
    eval_split: str = "validation"
    licence: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """`glue/mrpc`, or `imdb` where there is no subset."""
        return f"{self.name}/{self.subset}" if self.subset else self.name

    @property
    def folder(self) -> str:
        """Where its records lie below a source folder: `glue/mrpc`, or `imdb/default`."""
        name, subset = self.origin
        return f"{name}/{subset or 'default'}"

    @property
    def origin(self) -> tuple[str, str]:
        """Name and subset under which its records and its templates are filed: its parent's, or its own."""
        name, _, subset = self.parent.partition("/")
        return (name, subset) if self.parent else (self.name, self.subset)

    def task_name(self, template_name: str) -> str:
        """Name of the task that a template makes of this dataset (T0 puts ANLI's round at the end)."""
        return task_name(*self.origin, f"{template_name}_{self.subset}" if self.parent else template_name)


COLUMNS = tuple(field.name for field in fields(Dataset))


def load_catalogue(extra: Path | None = None) -> dict[str, Dataset]:
    """All known datasets by key, in the catalogue's order.

    Args:
        extra: a user's CSV file with the same columns. Only `name` is required; a missing column or an empty cell takes
            the default. A dataset that t0train knows too is replaced.

    Raises:
        UserError: unreadable file, unknown or missing column, a bad value, or a dataset that occurs twice;
            with the line.
    """
    catalogue = dict(_own_catalogue())
    return catalogue | read_catalogue(extra) if extra else catalogue


@lru_cache(maxsize=1)
def _own_catalogue() -> dict[str, Dataset]:
    return read_catalogue(Path(__file__).with_name("datasets.csv"))


def read_catalogue(path: Path) -> dict[str, Dataset]:
    """The datasets of one catalogue file, by key. Raises as `load_catalogue`."""
    records = read_csv(path)
    _, header = next(records, (0, []))
    if not any(cell.strip() for cell in header):
        raise UserError(f"the catalogue {path} is empty; its first line must name the columns: {', '.join(COLUMNS)}.")
    header = [name.strip() for name in header]
    _check_header(header, path)
    found: dict[str, Dataset] = {}
    lines: dict[str, int] = {}
    for line, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}, line {line}"
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} cells, but the header names {len(header)} columns; quote cells with commas."
            )
        dataset = _dataset(
            {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}, where
        )
        if dataset.key in found:
            raise UserError(
                f"{where}: dataset {dataset.key!r} occurs twice, first on line {lines[dataset.key]}; remove one"
                " of the lines."
            )
        found[dataset.key], lines[dataset.key] = dataset, line
    return found


def _check_header(header: list[str], path: Path) -> None:
    for name in header:
        if name not in COLUMNS:
            raise UserError(f"the catalogue {path} has an unknown column {name!r}: {nearest(name, COLUMNS)}")
        if header.count(name) > 1:
            raise UserError(f"the catalogue {path} names the column {name!r} twice; remove one.")
    if "name" not in header:
        raise UserError(
            f"the catalogue {path} has no column 'name' (found {', '.join(header)}); it is the one required."
        )


def _dataset(cells: dict[str, str], where: str) -> Dataset:
    if "name" not in cells:
        raise UserError(f"{where}: the name is empty; give the dataset's name in promptsource or in your templates.")
    for column in ("name", "subset", "parent"):
        _check_name(cells.get(column), f"{where}: {column}")
    for column in ("train_split", "eval_split"):
        try:
            parse_split(cells.get(column, "train"))
        except UserError as error:
            raise UserError(f"{where}: {column}: {error}") from error
    if not _HUB_ID.fullmatch(cells.get("hub_id", "name")):
        raise UserError(f"{where}: hub_id is {_short(cells['hub_id'])}, expected owner/name, or an empty cell.")
    for column, allowed in (("stage", STAGES), ("held_out", HELD_OUT)):
        if cells.get(column, allowed[0]) not in allowed:
            options = ", ".join(allowed)
            raise UserError(f"{where}: {column} is {_short(cells[column])}, expected {options} or an empty cell.")
    size = cells.get("train_size")
    if size is not None and not _SIZE.fullmatch(size):
        raise UserError(f"{where}: train_size is {_short(size)}, expected a whole number above 0, or an empty cell.")
    text = {column: cell for column, cell in cells.items() if column != "train_size"}
    return Dataset(**text, train_size=int(size) if size else None)


def _check_name(name: str | None, what: str) -> None:
    """Refuse a name that could not be part of folders and of task names."""
    if name is None:
        return
    if len(name.encode()) > _LONGEST_NAME:
        raise UserError(f"{what} has {len(name)} characters, expected {_LONGEST_NAME} bytes at most: {_short(name)}.")
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{what} is {_short(name)}, but a name is expected, not a path: letters, digits, '_', '.', '-', '+' and"
            " blanks, beginning with a letter or a digit; a '/' may stand between two of them, as on the hub."
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


@dataclass(frozen=True)
class Task:
    """One dataset under one template: the unit that a mixture draws from and that a prompt statistic counts."""

    name: str
    dataset: Dataset
    template: Template

    @classmethod
    def of(cls, dataset: Dataset, template: Template) -> Task:
        """The task that `template` makes of `dataset`, under T0's name."""
        return cls(dataset.task_name(template.name), dataset, template)


def refuse_equal_names(tasks: Iterable[Task]) -> None:
    """Refuse tasks of one name: T0's rule makes "Is it?" and "Is it!" the same, and what is stored goes by the name.

    Raises:
        UserError: names the two templates.
    """
    known: dict[str, Task] = {}
    for task in tasks:
        other = known.setdefault(task.name, task)
        if other is not task:
            raise UserError(f"{other.template} and {task.template} make the same task name {task.name!r}; rename one.")
