"""A task: one dataset under one template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t0train.core.errors import UserError
from t0train.tasks.catalogue import Dataset

if TYPE_CHECKING:
    from t0train.prompts import Template


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
