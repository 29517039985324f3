"""Rate functions, the mixtures of the T0 family, ablation operators, the printed table."""

from t0train.mixture.assemble import Mixture, build_mixture, load_mixture
from t0train.mixture.check import SourceReport, check_sources
from t0train.mixture.contamination import (
    Leak,
    check_leaks,
    describe_leaks,
    find_leaks,
    find_overlaps,
    leak_notes,
    leaks_of_run,
    write_overlaps,
)
from t0train.mixture.rates import equal, proportional, t0_cap, temperature
from t0train.mixture.table import DatasetSummary, TaskSummary, by_dataset

__all__ = [
    "DatasetSummary",
    "Leak",
    "Mixture",
    "SourceReport",
    "TaskSummary",
    "build_mixture",
    "by_dataset",
    "check_leaks",
    "check_sources",
    "describe_leaks",
    "equal",
    "find_leaks",
    "find_overlaps",
    "leak_notes",
    "leaks_of_run",
    "load_mixture",
    "proportional",
    "t0_cap",
    "temperature",
    "write_overlaps",
]
