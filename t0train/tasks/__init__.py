"""The catalogue of T0's datasets, their sources, and tasks (dataset x template)."""

from t0train.tasks.catalogue import Dataset, Task, load_catalogue, refuse_equal_names, task_name
from t0train.tasks.sources import (
    MissingTable,
    Table,
    Watch,
    explain_nothing_found,
    list_missing,
    missing_tables,
    open_table,
    training_split,
)
from t0train.tasks.splits import Split, parse_split

__all__ = [
    "Dataset",
    "MissingTable",
    "Split",
    "Table",
    "Task",
    "Watch",
    "explain_nothing_found",
    "list_missing",
    "load_catalogue",
    "missing_tables",
    "open_table",
    "parse_split",
    "refuse_equal_names",
    "task_name",
    "training_split",
]
