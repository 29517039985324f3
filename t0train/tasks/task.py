"""A task: one dataset under one template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
