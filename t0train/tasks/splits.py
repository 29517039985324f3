"""Splits: as a user writes them (`train`, or a slice: `test[:1000]`, `test[1000:]`), and the files that hold each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t0train.core.errors import UserError
from t0train.core.text import read_json

_SPLIT = re.compile(r"(?P<name>\w[\w.-]*)(?:\[(?P<start>\d{0,15}):(?P<stop>\d{0,15})\])?", re.ASCII)


@dataclass(frozen=True)
class Split:
    """Records `start` to `stop` (None: the end) of the split `name`."""

    name: str
    start: int = 0
    stop: int | None = None

    def __str__(self) -> str:
        if self.start == 0 and self.stop is None:
            return self.name
        return f"{self.name}[{self.start or ''}:{'' if self.stop is None else self.stop}]"

    def bounds(self, records: int) -> tuple[int, int]:
        """First record and end of the slice in a split of `records` records; the two are equal when nothing is left."""
        stop = records if self.stop is None else min(self.stop, records)
        return min(self.start, stop), stop

    def overlaps(self, other: Split) -> bool:
        """Whether some record can belong to both."""
        if self.name != other.name:
            return False
        return (other.stop is None or self.start < other.stop) and (self.stop is None or other.start < self.stop)


def parse_split(text: str) -> Split:
    """Read `name`, `name[a:b]`, `name[:b]` or `name[a:]`; records count from 0, b is not included.

    Raises:
        UserError: malformed (percentages and negative numbers included), or a slice that is empty by its own numbers.
    """
    match = _SPLIT.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"split {text!r} cannot be read; write a name, or one with a range: train, test[:100], test[100:]."
        )
    start, stop = int(match["start"] or 0), int(match["stop"]) if match["stop"] else None
    if stop is not None and start >= stop:
        raise UserError(f"split {text!r} is empty: its first record {start} is not below its end {stop}.")
    return Split(match["name"], start, stop)


SUPPORTED = "parquet, arrow, jsonl, json, csv, tsv (the last four also with .gz)"

_FILE = re.compile(
    r"(?P<split>\w[\w.-]*?)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5})(?:-[0-9a-f]{8,64})?)?"  # the hub adds a hash
    r"\.(?P<format>parquet|arrow|(?:jsonl|json|csv|tsv)(?:\.gz)?)"
)
_NUMBERED = re.compile(r"\d{4}\.parquet")  # in the folders of the hub's revision refs/convert/parquet
_STATE = "state.json"  # of a table that `datasets` has saved with save_to_disk
_METADATA = {_STATE, "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of every split in a dataset's folder, shards in order.

    A split is one file, numbered shards, or a folder of its name as `datasets` saves it (save_to_disk) or as the hub
    converts it (0000.parquet, 0001.parquet, ...).

    Raises:
        UserError: a split in two formats, or with a shard missing.
    """
    if (folder / _STATE).is_file():
        return _saved_alone(folder)
    found: dict[str, list[tuple[Path, re.Match[str]]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and path.name not in _METADATA and path.is_file():
            found[match["split"]].append((path, match))
    splits = {split: _whole(folder, split, files) for split, files in found.items()}
    for child in sorted(folder.iterdir()):
        if child.is_dir() and (files := _of_folder(child)):
            if child.name in splits:
                raise _twice(folder, child.name, [*splits[child.name], child])
            splits[child.name] = files
    return splits


def _twice(folder: Path, split: str, paths: Sequence[Path]) -> UserError:
    names = ", ".join(path.name for path in paths)
    return UserError(f"{folder} holds the split {split!r} more than once ({names}); keep one of them.")


def _whole(folder: Path, split: str, files: Sequence[tuple[Path, re.Match[str]]]) -> list[Path]:
    """The files of one split, if they are all of its shards, in one format."""
    paths = [path for path, _ in files]
    counts = {(match["shards"], match["format"]) for _, match in files}
    shards = files[0][1]["shards"]
    if len(counts) > 1 or len({match["shard"] for _, match in files}) < len(files):
        raise _twice(folder, split, paths)
    if shards is not None and [int(match["shard"]) for _, match in files] != list(range(int(shards))):
        raise UserError(f"{folder} holds {len(files)} of the {int(shards)} files of the split {split!r}; add the rest.")
    return paths


def _of_folder(folder: Path) -> list[Path]:
    """The files of a split that is a folder; none if it holds no split."""
    if (folder / _STATE).is_file():
        return _saved(folder)[1]
    numbered = sorted(path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name))
    if [path.stem for path in numbered] != [f"{number:04d}" for number in range(len(numbered))]:
        raise UserError(f"{folder} holds {numbered[0].name} ... {numbered[-1].name} with a gap; add the rest.")
    return numbered


def _saved_alone(folder: Path) -> dict[str, list[Path]]:
    split, files = _saved(folder)
    if not split:
        raise UserError(
            f"{folder} is a table that was saved without the name of its split; move its files into a folder of that"
            f" name: {folder / 'train'}, say"
        )
    return {split: files}


def _saved(folder: Path) -> tuple[str, list[Path]]:
    """Split (empty if unknown) and files of a table that `datasets` has saved; other .arrow files are its cache."""
    state = read_json(folder / _STATE)
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
        files = [folder / name for name in names if Path(name).name == name]
        split = state.get("_split") or ""
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / _STATE} is not what `datasets` writes: no list of _data_files.") from error
    if len(files) != len(names) or not files or not isinstance(split, str):
        raise UserError(f"{folder / _STATE} is not what `datasets` writes: _data_files are {names}.")
    if missing := [path.name for path in files if not path.is_file()]:
        raise UserError(f"{folder} lacks {', '.join(missing)}, named in its {_STATE}; add the rest.")
    return split, files


def describe(folder: Path, most: int = 8) -> str:
    """What lies in a folder, for messages: `train.pkl, data/ and 3 more`."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(folder.iterdir())]
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
