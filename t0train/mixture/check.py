"""Whether all datasets of a mixture are available: what is missing, what it weighs, and how to go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from t0train.config.schema import DataConfig
from t0train.core.errors import UserError
from t0train.mixture.assemble import Mixture
from t0train.tasks import (
    MissingTable,
    explain_nothing_found,
    list_missing,
    missing_tables,
    open_table,
    training_split,
)
from t0train.tasks.sources import HUB


@dataclass(frozen=True)
class SourceReport:
    """What a source holds of a mixture.

    Attributes:
        mixture: the mixture that was checked.
        source: `hub` or the folder.
        missing: datasets (or their splits) that are not available.
        lost: share of the mixture's weight that these have, 0 to 1.
        records: available records by dataset key; empty for the hub, which is queried only when records are fetched.
        problems: unreadable files, and templates that name a column the records lack.
        remarks: what a user should know though it stops nothing.
    """

    mixture: Mixture
    source: str
    missing: tuple[MissingTable, ...]
    lost: float
    records: dict[str, int]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    def require(self) -> Mixture:
        """The mixture, with the remarks of this report, if all that it needs is there.

        Raises:
            UserError: names everything that is wrong at once, and how to go on.
        """
        if self.missing:
            reason = explain_nothing_found(self.mixture.datasets, self.source)
            listed = list_missing([(one.dataset.key, one.split, reason or one.reason) for one in self.missing])
            count = len({table.dataset.key for table in self.missing})
            raise UserError(
                f"{count} of the {len(self.mixture.datasets)} datasets of the mixture {self.mixture.name!r} are not"
                f" available; they have {self.lost:.1%} of its weight:\n{listed}\nGet them (data.source=hub fetches"
                " those that are there), point data.source to where they are, name other splits in data.splits, or"
                " train on the rest with data.missing=drop (the run records it)."
            )
        if self.problems:
            raise UserError("\n".join(self.problems))
        return replace(self.mixture, remarks=(*self.mixture.remarks, *self.remarks))


def check_sources(mixture: Mixture, data: DataConfig) -> SourceReport:
    """Look for the records of every dataset of a mixture, and for the columns that its templates read.

    A folder's files are opened (their heads only, where the format allows). The hub is not queried: only datasets that
    it cannot have are reported.
    """
    missing = missing_tables(mixture.datasets, data.splits, data.source)
    absent = {table.dataset.key for table in missing}
    weights = mixture.weights()
    records: dict[str, int] = {}
    problems: list[str] = []
    if data.source != HUB:
        for dataset in mixture.datasets:
            if dataset.key in absent:
                continue
            try:
                table = open_table(dataset, training_split(dataset, data.splits), data.source)
                records[dataset.key] = table.num_records
                for task in mixture.tasks:
                    if task.dataset == dataset:
                        task.template.check_columns(table.columns)
            except UserError as error:
                problems.append(str(error))
    return SourceReport(
        mixture=mixture,
        source=data.source if data.source == HUB else str(Path(data.source)),
        missing=tuple(missing),
        lost=sum(weights[key] for key in absent),
        records=records,
        problems=tuple(problems),
        remarks=_fewer_records(mixture, records),
    )


def _fewer_records(mixture: Mixture, records: dict[str, int]) -> tuple[str, ...]:
    """Say so where a source holds fewer records than the original: then its size and its rate are two things."""
    fewer = [
        f"{dataset.key} {records[dataset.key]:,} < {dataset.train_size:,}"
        for dataset in mixture.datasets
        if dataset.key in records and dataset.train_size and records[dataset.key] < dataset.train_size
    ]
    if not fewer:
        return ()
    decides = "the available records" if mixture.rates_from == "records" else "the catalogue"
    return (
        f"fewer records available than the catalogue's train_size: {', '.join(fewer)};"
        f" the rates come from {decides} (mixture.rates_from: {mixture.rates_from})",
    )
