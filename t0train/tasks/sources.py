"""Rows of a dataset's split, from a folder of files or from the Hugging Face hub. No code of a dataset is ever run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from t0train.core.errors import UserError
from t0train.core.hashing import content_hash
from t0train.tasks.catalogue import Dataset, load_catalogue
from t0train.tasks.files import Reader, content_identity, file_states, open_reader
from t0train.tasks.hub import open_hub
from t0train.tasks.layout import split_files
from t0train.tasks.split import Split, parse_split

HUB = "hub"


class Table:
    """The rows of one split of one dataset, or of a slice of it. Rows are read when asked for.

    Attributes:
        split: which rows of which split these are.
        columns: names as they come (a hyphen stays a hyphen).
        num_rows: rows of the slice.
    """

    def __init__(
        self,
        reader: Reader,
        split: Split,
        identity: Callable[[], str],
        origin: str,
        is_unchanged: Callable[[], bool] = lambda: True,
    ) -> None:
        self.split = split
        self.columns = list(reader.columns)
        self._reader, self._identity, self._is_unchanged, self._origin = reader, identity, is_unchanged, origin
        self._start, stop = split.bounds(reader.num_rows)
        self.num_rows = stop - self._start
        if self.num_rows == 0:
            raise UserError(
                f"{origin}: split {split} holds no row ({split.name} has {reader.num_rows:,}); choose another slice."
            )

    @cached_property
    def revision(self) -> str:
        """Identity of the rows: a hash of the files' content (the hub: of the resolved revision) and the slice."""
        revision = content_hash([self._identity(), self._start, self._start + self.num_rows])
        self.check_unchanged()  # it must be the identity of what this table reads
        return revision

    def check_unchanged(self) -> None:
        """Refuse to go on where files of the split were written to, or replaced, since the table was opened.

        Raises:
            UserError: they were.
        """
        if not self._is_unchanged():
            raise UserError(
                f"{self._origin}: files of split {self.split} changed while they were being read; wait until nothing"
                " writes to them, and run the same command again."
            )

    def rows(
        self, start: int = 0, stop: int | None = None, columns: Iterable[str] | None = None
    ) -> list[dict[str, Any]]:
        """Rows `start` to `stop` of the slice, as Hugging Face's `datasets` gives them: a label is its number.

        Args:
            start: first row.
            stop: end, not included; default: the last row.
            columns: read these only; default: all. Reading few of them spares much time where rows are long.
        """
        first, last = self._start + start, self._start + min(self.num_rows if stop is None else stop, self.num_rows)
        if not self._start <= first <= last:
            raise IndexError(f"rows {start}:{stop} of a table of {self.num_rows} rows")
        return self._reader.read(first, last, None if columns is None else list(columns))


def open_table(dataset: Dataset, split: str, source: str) -> Table:
    """The rows of a split.

    Args:
        dataset: which dataset.
        split: e.g. `train` or `test[:1000]`.
        source: `hub`, or a folder that holds `<dataset>/<subset or default>/<split>.parquet` (or .jsonl, .csv, .arrow;
            several files of one split are named `<split>-00000-of-00003.parquet` and so on).

    Raises:
        UserError: no such folder, dataset or split (the message names those at hand), an unreadable file, an empty
            slice; for the hub: no network, a gated or script-only dataset, with what to do instead.
    """
    wanted = parse_split(split)
    if source == HUB:
        reader, fingerprint = open_hub(dataset, wanted.name)
        return Table(reader, wanted, lambda: fingerprint, f"{dataset.key} of the hub")
    try:
        files = _files_of(dataset, wanted, Path(source))
    except UserError as error:
        raise UserError(f"no rows of {dataset.key}: {error}.") from error
    opened = file_states(files)
    return Table(
        open_reader(files),
        wanted,
        lambda: content_identity(files),
        str(files[0].parent),
        lambda: file_states(files) == opened,
    )


def _files_of(dataset: Dataset, split: Split, source: Path) -> list[Path]:
    """The files of a split. Raises `UserError` with a short reason if there are none."""
    folder = source / dataset.folder
    if not source.is_dir():
        raise UserError(f"data.source is {str(source)!r}, but there is no such folder; give one with rows, or `hub`")
    if not folder.is_dir():
        others = {other.folder for other in load_catalogue().values()}  # rightly named: no misspelling of this one
        there = {str(path.relative_to(source)) for path in source.glob("*/*") if path.is_dir()}
        close = get_close_matches(dataset.folder, there - others, n=1, cutoff=0.85)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UserError(f"no folder {folder}{hint}; {whereabouts(dataset)}")
    splits = split_files(folder)
    if split.name not in splits:
        names = ", ".join(sorted(splits))
        raise UserError(
            f"no split {split.name!r} in {folder}; {f'there: {names}' if names else 'no file of rows there'}"
        )
    return splits[split.name]


def whereabouts(dataset: Dataset) -> str:
    """Where a dataset can be had."""
    if not dataset.hub_id:
        return f"not on the hub: {dataset.note or 'the catalogue knows no hub_id for it'}"
    place = " ".join(part for part in (dataset.hub_id, dataset.hub_config) if part)
    return f"on the hub: {place}{f' @ {dataset.revision}' if dataset.revision else ''}"


def training_split(dataset: Dataset, splits: Mapping[str, str]) -> str:
    """The split that is trained on: what `splits` (data.splits) says for the dataset's key, else the catalogue's."""
    return splits.get(dataset.key, dataset.train_split)


@dataclass(frozen=True)
class MissingTable:
    """A split that a source does not hold, and why."""

    dataset: Dataset
    split: str
    reason: str


def missing_tables(datasets: Iterable[Dataset], splits: Mapping[str, str], source: str) -> list[MissingTable]:
    """The datasets whose rows are not at hand. Looks for files only: opens none, and does not ask the hub.

    Args:
        datasets: what is needed.
        splits: as for `training_split`.
        source: as for `open_table`.
    """
    missing = []
    for dataset in datasets:
        split = training_split(dataset, splits)
        try:
            wanted = parse_split(split)
            if source != HUB:
                _files_of(dataset, wanted, Path(source))
            elif not dataset.hub_id:
                raise UserError(whereabouts(dataset))
        except UserError as error:
            missing.append(MissingTable(dataset, split, str(error)))
    return missing
