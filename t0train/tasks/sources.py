"""Records of a dataset's split, from a folder of files or the Hugging Face hub. No code of a dataset is ever run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from t0train.core.errors import UserError, explain_os_errors
from t0train.core.hashing import content_hash
from t0train.tasks.catalogue import Dataset, load_catalogue
from t0train.tasks.formats import Reader, content_identity, file_states, open_reader
from t0train.tasks.hub import open_hub
from t0train.tasks.splits import SUPPORTED, Split, describe, parse_split, split_files

HUB = "hub"
_READING = 2  # raised when the same files are read as other values: what was prepared from them is out of date


@dataclass(frozen=True)
class Watch:
    """Tells whether the files of a split are still those that were opened, without keeping their records in memory."""

    origin: str
    split: Split
    is_unchanged: Callable[[], bool]

    def check(self) -> None:
        """Refuse to go on where a file was written to, or replaced, since it was opened.

        Raises:
            UserError: one was.
        """
        if not self.is_unchanged():
            raise UserError(
                f"{self.origin}: files of split {self.split} changed while they were being read; wait until nothing"
                " writes to them, and run the same command again."
            )


class Table:
    """The records of one split of one dataset, or of a slice of it. Records are read on demand.

    Attributes:
        split: which records of which split these are.
        columns: names as they come (a hyphen stays a hyphen).
        num_records: records of the slice.
        watch: tells whether the files behind it have changed since.
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
        self.watch = Watch(origin, split, is_unchanged)
        self._reader, self._identity = reader, identity
        self._start, stop = split.bounds(reader.num_records)
        self.num_records = stop - self._start
        if self.num_records == 0:
            raise UserError(
                f"{origin}: split {split} holds no record ({split.name} has {reader.num_records:,}); choose another"
                " slice."
            )

    @cached_property
    def revision(self) -> str:
        """Identity of the records: a hash of the files' content (the hub: of the resolved revision) and the slice."""
        revision = content_hash([_READING, self._identity(), self._start, self._start + self.num_records])
        self.watch.check()  # it must be the identity of what this table reads
        return revision

    def records(
        self, start: int = 0, stop: int | None = None, columns: Iterable[str] | None = None
    ) -> list[dict[str, Any]]:
        """Records `start` to `stop` of the slice, as Hugging Face's `datasets` gives them: a label is its number.

        Args:
            start: first record.
            stop: end, not included; default: the last record.
            columns: read these only; default: all. Reading few of them spares much time where records are long.

        Raises:
            UserError: the files changed since the table was opened.
        """
        first, last = (
            self._start + start,
            self._start + min(self.num_records if stop is None else stop, self.num_records),
        )
        if not self._start <= first <= last:
            raise IndexError(f"records {start}:{stop} of a table of {self.num_records} records")
        try:
            return self._reader.read(first, last, None if columns is None else list(columns))
        finally:  # that a file was written to is the better message where it cannot be read for this reason
            self.watch.check()


def open_table(dataset: Dataset, split: str, source: str) -> Table:
    """The records of a split.

    Args:
        dataset: which dataset.
        split: e.g. `train` or `test[:1000]`.
        source: `hub`, or a folder that holds `<dataset>/<subset or default>/<split>.parquet`; other formats and
            layouts: `t0train.tasks.splits`.

    Raises:
        UserError: no such folder, dataset or split (the message names those that exist), an unreadable file, an empty
            slice; for the hub: no network, a gated or script-only dataset, with what to do instead.
    """
    wanted = parse_split(split)
    if source == HUB:
        reader, fingerprint = open_hub(dataset, wanted.name)
        return Table(reader, wanted, lambda: fingerprint, f"{dataset.key} of the hub")
    try:
        files = _files_of(dataset, wanted, Path(source))
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"no records of {dataset.key}: {reason}.") from error
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
    if reason := no_source(source):
        raise UserError(reason)
    folder = source / dataset.folder
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"{folder} is a file, expected a folder with one file for each split")
        raise UserError(f"no folder {folder}{_similar(dataset, source)}; {whereabouts(dataset)}")
    with explain_os_errors("read", folder):
        splits = split_files(folder)
        if split.name in splits:
            return splits[split.name]
        if splits:
            raise UserError(f"no split {split.name!r} in {folder}; there: {', '.join(sorted(splits))}")
        raise UserError(
            f"no split {split.name!r} in {folder}, where {describe(folder)} was found; files are named"
            f" <split>.<format>, the format being one of {SUPPORTED}"
        )


def no_source(source: Path) -> str:
    """Why there can be no records at all in a source; empty if it is a folder that holds something."""
    if not source.exists():
        return f"data.source is {str(source)!r}, but there is no such folder; give one with records, or `hub`"
    if not source.is_dir():
        return f"data.source is {str(source)!r}, a file; give the folder that holds <dataset>/<subset>/<split>.parquet"
    with explain_os_errors("read", source):
        if not any(source.iterdir()):
            return f"data.source is {str(source)!r}, an empty folder; give one with records, or `hub`"
    return ""


def _similar(dataset: Dataset, source: Path) -> str:
    """A folder that may be meant, as a hint."""
    if other := _other_level([dataset.folder], source):
        return f" (did you mean data.source={other}?)"
    name = source / dataset.origin[0]
    if not dataset.origin[1] and name.is_dir() and split_files(name):
        return f" (move what lies in {name} into {source / dataset.folder})"
    others = {other.folder for other in load_catalogue().values()}  # rightly named: no misspelling of this one
    there = {str(path.relative_to(source)) for path in source.glob("*/*") if path.is_dir()}
    close = get_close_matches(dataset.folder, there - others, n=1, cutoff=0.85)
    return f" (did you mean {close[0]!r}?)" if close else ""


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
    """The datasets whose records are missing. Looks for files only: opens none, and does not query the hub.

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


def list_missing(missing: Sequence[tuple[str, str, str]]) -> str:
    """Lines for an error message: each reason once, with all splits that it is true of.

    Args:
        missing: dataset, split and reason of each, at least one.
    """
    by_reason: dict[str, list[str]] = {}
    for dataset, split, reason in missing:
        by_reason.setdefault(reason, []).append(f"{dataset} ({split})")
    return "\n".join(
        f"  {names[0]}: {reason}" if len(names) == 1 else f"  {reason}:\n    {', '.join(names)}"
        for reason, names in by_reason.items()
    )


def explain_nothing_found(datasets: Iterable[Dataset], source: str) -> str:
    """Why a folder holds none of the datasets, in one clause; empty if it holds one, and for the hub."""
    place = Path(source)
    if source == HUB:
        return ""
    if reason := no_source(place):
        return reason
    folders = {dataset.folder for dataset in datasets}
    if any((place / folder).exists() for folder in folders):
        return ""
    found = f"{source} holds none of their folders, such as {sorted(folders)[0]}; there: {describe(place)}"
    if other := _other_level(folders, place):
        return f"{found} (did you mean {other}, which holds some of them?)"
    return found if len(folders) > 1 else ""


def _other_level(folders: Iterable[str], source: Path) -> Path | None:
    """The folder above a source, or one right below it, that holds one of the dataset folders."""
    below = (path for path in sorted(source.iterdir())[:1000] if path.is_dir())
    others = (source.absolute().parent, *below)
    return next((other for other in others if any((other / folder).is_dir() for folder in folders)), None)
