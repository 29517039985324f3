"""Are two datasets one under two names? By what the hub calls them, and by copies of their files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from t0train.core.errors import UserError
from t0train.tasks import Dataset
from t0train.tasks.formats import content_identity
from t0train.tasks.sources import HUB
from t0train.tasks.splits import split_files


class Name(NamedTuple):
    """What the hub calls a dataset; an empty part is not known and matches any."""

    owner: str
    repository: str
    config: str

    def fits(self, other: Name) -> bool:
        """Whether both can be names of the same records."""
        return all(mine == its or not (mine and its) for mine, its in zip(self, other, strict=True))


def is_same(one: Dataset, other: Dataset) -> bool:
    """Whether a name of the one dataset is a name of the other: no spelling must hide a leak.

    Capitals do not count, nor do hyphens for underscores. Before the hub had owners, a dataset's id was the part after
    the slash, as its name in promptsource still is: a name without owner is that of any owner's repository.
    """
    return any(mine.fits(its) for mine in _names(one) for its in _names(other))


def _names(dataset: Dataset) -> Iterator[Name]:
    name, subset = dataset.origin
    yield _name("", name, subset)
    if dataset.hub_id:
        yield _name(*_parted(dataset.hub_id), dataset.hub_config)
    if "/" in name:  # a dataset that no catalogue knows: name and subset, or owner and name
        yield _name(*_parted(name), "")
        yield _name("", *name.split("/", 1))


def _parted(hub_id: str) -> tuple[str, str]:
    owner, _, repository = hub_id.rpartition("/")
    return owner, repository


def _name(owner: str, repository: str, config: str) -> Name:
    parts = (part.strip().casefold().replace("-", "_") for part in (owner, repository, config))
    return Name(*("" if part == "default" else part for part in parts))


class Copy(NamedTuple):
    """A file of records that a training dataset shares with a scored one: splits of both, and the training dataset."""

    dataset: str
    split: str
    scored_split: str


class TrainingFiles:
    """The files of the training datasets' folders, to be looked up by content. Only files of equal sizes are read."""

    def __init__(self, datasets: Iterable[Dataset], source: str) -> None:
        self._by_size: dict[int, list[tuple[str, str, Path]]] = defaultdict(list)
        for dataset in datasets:
            for split, path in _files(dataset, source):
                self._by_size[path.stat().st_size].append((dataset.key, split, path))

    def copies(self, scored: Dataset, source: str) -> set[Copy]:
        """What they share with the folder of a scored dataset."""
        return {
            Copy(key, split, scored_split)
            for scored_split, path in _files(scored, source)
            for key, split, other in self._by_size.get(path.stat().st_size, ())
            if path.samefile(other) or content_identity([path]) == content_identity([other])
        }


def _files(dataset: Dataset, source: str) -> Iterator[tuple[str, Path]]:
    """(split, file) of a dataset in a folder of records; none on the hub, and none that is empty."""
    folder = Path(source, dataset.folder)
    if source == HUB or not folder.is_dir():
        return
    try:
        splits = split_files(folder)
    except UserError:  # which of its files are meant is not clear: nothing can be trained or scored on it
        return
    for split, paths in splits.items():
        yield from ((split, path) for path in paths if path.stat().st_size)
