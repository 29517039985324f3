"""Does a mixture train on what a suite judges? Same records, same dataset, same family, or shared n-grams."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from t0train.config import RunConfig, SuiteConfig, load_suite
from t0train.config.suite import OVERLAPS
from t0train.core.errors import UserError
from t0train.core.files import make_folder, refuse_linked_folders, write_json
from t0train.core.hashing import mix64
from t0train.mixture.assemble import Mixture
from t0train.mixture.dataset_identity import TrainingFiles, is_same
from t0train.prompts import columns_read, load_templates
from t0train.results.results_json import NotHeldOut, Overlap, OverlapReport, SharedText
from t0train.tasks import Dataset, Table, load_catalogue, open_table, parse_split, training_split
from t0train.tasks.sources import HUB

Kind = Literal["records", "dataset", "family"]
_FORBIDDEN = {"families": {"records", "dataset", "family"}, "datasets": {"records", "dataset"}, "records": {"records"}}
"""By leaks.held_out: the kinds of leaks that stop a run."""


@dataclass(frozen=True)
class Leak:
    """An evaluation dataset that is not held out.

    Attributes:
        dataset: key of the evaluated dataset.
        kind: records (the scored ones are trained on), dataset (other records of it are), or family (its kind of task
            is).
        trained: keys of the datasets that it shares this with.
    """

    dataset: str
    kind: Kind
    trained: tuple[str, ...]

    def __str__(self) -> str:
        other_name = "" if self.trained == (self.dataset,) else f" (as {', '.join(self.trained)})"
        return {
            "records": f"{self.dataset}: records that are scored are trained on, too{other_name}",
            "dataset": f"{self.dataset} is not held out: other records of it are trained on{other_name}",
            "family": f"{self.dataset}: no records of it are trained on, but its family is ({', '.join(self.trained)})",
        }[self.kind]


def describe_leaks(leaks: Iterable[Leak]) -> dict[str, NotHeldOut]:
    """Kind and sentence by dataset, for files; of several entries of a dataset the gravest is said."""
    ordered = sorted(leaks, key=lambda leak: leak.kind == "records")
    return {leak.dataset: NotHeldOut(kind=leak.kind, sentence=str(leak)) for leak in ordered}


def leak_notes(described: Mapping[str, NotHeldOut]) -> list[str]:
    """What `describe_leaks` gives, for a terminal: datasets of which only the family is trained on share one line."""
    family = [dataset for dataset, found in described.items() if found.kind == "family"]
    if len(family) < 2:
        return [found.sentence for found in described.values()]
    others = [found.sentence for found in described.values() if found.kind != "family"]
    return [*others, f"{', '.join(family)}: no records of them are trained on, but their families are"]


def find_leaks(
    mixture: Mixture,
    suite: SuiteConfig,
    splits: Mapping[str, str],
    catalogue: Mapping[str, Dataset] | None = None,
    source: str = HUB,
) -> list[Leak]:
    """The evaluation datasets of a suite that a mixture gives away, each with the gravest kind of leak.

    Two datasets are the same if the hub calls them so, or if a file of the one is a copy of a file of the other, where
    both are folders.

    Args:
        mixture: what is trained on.
        suite: what is scored.
        splits: data.splits: training splits that are not the catalogue's.
        catalogue: the known datasets; default: t0train's own. Datasets that it does not know are compared by name.
        source: data.source: where the training records are, and those of a suite that names no folder.
    """
    known = load_catalogue() if catalogue is None else catalogue
    trained = {dataset.key: parse_split(training_split(dataset, splits)) for dataset in mixture.datasets}
    files = TrainingFiles(mixture.datasets, source)
    found = []
    for entry in suite.tasks:
        judged, scored = known.get(entry.dataset, Dataset(entry.dataset)), parse_split(entry.split)
        copies = files.copies(judged, suite.data or source)
        copied = {copy.dataset for copy in copies}
        same = [dataset.key for dataset in mixture.datasets if dataset.key in copied or is_same(dataset, judged)]
        family = [dataset.key for dataset in mixture.datasets if judged.family and dataset.family == judged.family]
        records = [key for key in same if trained[key].overlaps(scored)] + [
            copy.dataset
            for copy in copies
            if (copy.split, copy.scored_split) == (trained[copy.dataset].name, scored.name)
            and replace(trained[copy.dataset], name=scored.name).overlaps(scored)
        ]
        kinds: list[tuple[Kind, list[str]]] = [("records", sorted(set(records))), ("dataset", same), ("family", family)]
        found += [Leak(judged.key, kind, tuple(keys)) for kind, keys in kinds if keys][:1]
    return found


def refuse_leaks(leaks: list[Leak], held_out: str) -> list[Leak]:
    """Those leaks that `leaks.held_out` allows.

    Raises:
        UserError: names the others, and what to change.
    """
    wrong = [leak for leak in leaks if leak.kind in _FORBIDDEN[held_out]]
    if wrong:
        ways = ["take the datasets out of the mixture (mixture.exclude) or out of the suite"]
        if kinds := {leak.kind for leak in wrong} & {"records"}:
            ways.append("name disjoint slices in data.splits and in the suite")
        if {leak.kind for leak in wrong} - kinds:
            weakest = "records" if any(leak.kind == "dataset" for leak in wrong) else "datasets"
            ways.append(f"say that less is held out, if that is meant (leaks.held_out={weakest})")
        raise UserError(
            "the run would train on what its suite judges:\n"
            + "".join(f"  {leak}\n" for leak in wrong)
            + f"Either {', or '.join(ways)}."
        )
    return leaks


def check_leaks(mixture: Mixture, run: RunConfig) -> list[Leak]:
    """What a run's own suite shares with its mixture, as far as the run allows it. No suite, no leak.

    Raises:
        UserError: more is shared than `leaks.held_out` allows.
    """
    if not run.suite:
        return []
    return refuse_leaks(leaks_of_run(mixture, load_suite(run.suite), run), run.leaks.held_out)


def leaks_of_run(mixture: Mixture, suite: SuiteConfig, run: RunConfig) -> list[Leak]:
    """`find_leaks` with the catalogue of the suite, or of the run, and the run's records."""
    extra = suite.catalogue or run.data.catalogue
    catalogue = load_catalogue(Path(extra) if extra else None)
    return find_leaks(mixture, suite, run.data.splits, catalogue, run.data.source)


_WORD = re.compile(r"\w+")
_CHUNK = 1024  # records read at once
_EXAMPLES = 3


@dataclass
class _Words:
    """Numbers words as they come, from 1; 0 is no word."""

    numbers: dict[str, int] = field(default_factory=dict)

    def learn(self, text: str) -> list[int]:
        return [self.numbers.setdefault(word, len(self.numbers) + 1) for word in _WORD.findall(text.lower())]

    def look_up(self, text: str) -> list[int]:
        return [self.numbers.get(word, 0) for word in _WORD.findall(text.lower())]


@dataclass(frozen=True)
class _Scored:
    """A scored dataset: its words in one line, and the n-grams that begin at `places` in it, of records `owners`."""

    dataset: str
    split: str
    records: int
    words: NDArray[np.int64]
    places: NDArray[np.int64]
    owners: NDArray[np.int64]
    grams: NDArray[np.uint64]


def find_overlaps(
    mixture: Mixture, suite: SuiteConfig, run: RunConfig, advance: Callable[[float], object] = lambda amount: None
) -> OverlapReport:
    """Compare the records of a suite with those that a mixture trains on.

    Args:
        mixture: what is trained on.
        suite: what is scored.
        run: where records, catalogue and templates are; `leaks.ngram` and `leaks.threshold`.
        advance: called after each training dataset.
    """
    words, missing = _Words(), dict[str, str]()
    scored = list(_read_suite(suite, run, words, missing))
    if not scored:
        return _report(mixture, run, (), missing)
    grams, index = np.unique(np.concatenate([part.grams for part in scored]), return_inverse=True)
    parts = np.split(index, np.cumsum([len(part.grams) for part in scored])[:-1])
    found_in = np.full((2, len(grams)), -1, dtype=np.int64)  # training dataset and record of each n-gram's first find
    sources: list[dict[str, int]] = [{} for _ in scored]
    for number, dataset in enumerate(mixture.datasets):
        here = np.zeros(len(grams), dtype=bool)
        try:
            for record, values in _training_grams(dataset, run, words):
                places = np.minimum(np.searchsorted(grams, values), len(grams) - 1)
                hits = grams[places] == values
                places, records = places[hits], record[hits]
                new = found_in[0, places] < 0
                found_in[:, places[new]] = np.stack([np.full(new.sum(), number), records[new]])
                here[places] = True
        except UserError as error:
            missing[dataset.key] = _reason(dataset, error)
        for part, own, counts in zip(scored, parts, sources, strict=True):
            if touched := len(np.unique(part.owners[here[own]])):
                counts[dataset.key] = touched
        advance(1)
    names, spelling = [dataset.key for dataset in mixture.datasets], ["", *words.numbers]
    overlaps = tuple(
        _summary(part, found_in[:, own], counts, names, spelling, run)
        for part, own, counts in zip(scored, parts, sources, strict=True)
    )
    return _report(mixture, run, overlaps, missing)


def _report(mixture: Mixture, run: RunConfig, overlaps: tuple[Overlap, ...], missing: dict[str, str]) -> OverlapReport:
    return OverlapReport(
        mixture=mixture.hash,
        ngram=run.leaks.ngram,
        threshold=run.leaks.threshold,
        overlaps=overlaps,
        not_compared=missing,
    )


def write_overlaps(report: OverlapReport, folder: Path) -> Path:
    """Write it for the run's reports into the folder of the suite's results, `RUN/eval/SUITE`.

    Raises:
        UserError: the folder cannot be written to, or is a symbolic link.
    """
    refuse_linked_folders(folder.parents[1], folder)
    path = make_folder(folder) / OVERLAPS
    write_json(path, report.as_json())
    return path


def _read_suite(suite: SuiteConfig, run: RunConfig, words: _Words, missing: dict[str, str]) -> Iterator[_Scored]:
    source = suite.data or run.data.source
    folders = [Path(folder) for folder in suite.templates or run.data.templates]
    extra = suite.catalogue or run.data.catalogue
    catalogue: Mapping[str, Dataset] = load_catalogue(Path(extra) if extra else None)
    for entry in suite.tasks:
        if entry.kind == "bigbench":
            missing[entry.dataset] = "the examples of BIG-bench are not compared"
            continue
        if entry.dataset not in catalogue:
            missing[entry.dataset] = "no catalogue knows it"
            continue
        dataset = catalogue[entry.dataset]
        try:
            table = open_table(dataset, entry.split, source)
            lines = list(_lines(dataset, table, folders, words.learn))
        except UserError as error:
            missing[entry.dataset] = _reason(dataset, error)
            continue
        owners, numbers = (np.concatenate(part) for part in zip(*lines, strict=True))
        places, grams = _grams(numbers, run.leaks.ngram)
        yield _Scored(dataset.key, entry.split, table.num_records, numbers, places, owners[places], grams)


def _reason(dataset: Dataset, error: UserError) -> str:
    """An error without the name of the dataset, which is shown next to it."""
    return str(error).removeprefix(f"no records of {dataset.key}: ")


def _training_grams(
    dataset: Dataset, run: RunConfig, words: _Words
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """(record of each, n-grams) of the training records, by chunks; without the n-grams that hold an unknown word."""
    table = open_table(dataset, training_split(dataset, run.data.splits), run.data.source)
    folders = [Path(folder) for folder in run.data.templates]
    for owners, numbers in _lines(dataset, table, folders, words.look_up):
        places, grams = _grams(numbers, run.leaks.ngram)
        yield owners[places], grams


def _lines(
    dataset: Dataset, table: Table, folders: Sequence[Path], number: Callable[[str], list[int]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The words of all texts in a line, a 0 behind each text, and the record that each belongs to; chunk by chunk."""
    templates = load_templates(*dataset.origin, folders).values()
    columns = columns_read(templates, table.columns)
    if not columns:
        raise UserError(f"no template of {dataset.key} reads one of its columns {', '.join(table.columns)}.")
    for start in range(0, table.num_records, _CHUNK):
        line: list[int] = []
        lengths = []
        records = table.records(start, start + _CHUNK, columns)
        for record in records:
            before = len(line)
            for text in _texts(record):
                line += number(text)
                line.append(0)
            lengths.append(len(line) - before)
        yield np.repeat(np.arange(start, start + len(records)), lengths), np.array(line, dtype=np.int64)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _texts(part)


def _grams(words: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where the n-grams without a 0 in them begin, and their hashes."""
    number = len(words) - size + 1
    if number <= 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
    zeros = np.concatenate([[0], np.cumsum(words == 0)])
    places = np.flatnonzero(zeros[size:] == zeros[:-size])
    codes = mix64(words.astype(np.uint64))
    hashes = np.zeros(len(places), dtype=np.uint64)
    for k in range(size):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[places + k]
    return places, hashes


def _summary(
    part: _Scored,
    found_in: NDArray[np.int64],
    sources: dict[str, int],
    names: Sequence[str],
    spelling: Sequence[str],
    run: RunConfig,
) -> Overlap:
    totals = np.bincount(part.owners, minlength=part.records)
    shared = np.bincount(part.owners, weights=found_in[0] >= 0, minlength=part.records)
    shares = np.divide(shared, totals, out=np.zeros(part.records), where=totals > 0)
    examples = []
    for record in np.argsort(-shares, kind="stable")[:_EXAMPLES].tolist():
        if shares[record] > 0:
            first = int(np.flatnonzero((part.owners == record) & (found_in[0] >= 0))[0])
            place = part.places[first]
            text = " ".join(spelling[number] for number in part.words[place : place + run.leaks.ngram])
            trained, trained_row = found_in[:, first].tolist()
            examples.append(
                SharedText(
                    record=record,
                    share=float(shares[record]),
                    words=text,
                    trained_dataset=names[trained],
                    trained_record=trained_row,
                )
            )
    return Overlap(
        dataset=part.dataset,
        split=part.split,
        records=part.records,
        short=int((totals == 0).sum()),
        touched=int((shared > 0).sum()),
        overlapping=int((shares >= run.leaks.threshold).sum()),
        sources=dict(sorted(sources.items(), key=lambda item: -item[1])),
        examples=tuple(examples),
    )
