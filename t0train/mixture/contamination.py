"""Does a mixture train on what a suite judges? Same rows, same dataset, or same family of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from t0train.config import RunConfig, SuiteConfig, load_suite
from t0train.core.errors import UserError
from t0train.mixture.assemble import Mixture
from t0train.mixture.dataset_identity import TrainingFiles, is_same
from t0train.results.results_json import NotHeldOut
from t0train.tasks import Dataset, load_catalogue, parse_split, training_split
from t0train.tasks.sources import HUB

Kind = Literal["rows", "dataset", "family"]
_FORBIDDEN = {"families": {"rows", "dataset", "family"}, "datasets": {"rows", "dataset"}, "rows": {"rows"}}
"""By leaks.held_out: the kinds of leaks that stop a run."""


@dataclass(frozen=True)
class Leak:
    """An evaluation dataset that is not held out.

    Attributes:
        dataset: key of the evaluated dataset.
        kind: rows (the scored rows are trained on), dataset (other rows of it are), or family (its kind of task is).
        trained: keys of the datasets that it shares this with.
    """

    dataset: str
    kind: Kind
    trained: tuple[str, ...]

    def __str__(self) -> str:
        other_name = "" if self.trained == (self.dataset,) else f" (as {', '.join(self.trained)})"
        return {
            "rows": f"{self.dataset}: rows that are scored are trained on, too{other_name}",
            "dataset": f"{self.dataset} is not held out: other rows of it are trained on{other_name}",
            "family": f"{self.dataset}: no rows of it are trained on, but its family is ({', '.join(self.trained)})",
        }[self.kind]


def describe_leaks(leaks: Iterable[Leak]) -> dict[str, NotHeldOut]:
    """Kind and sentence by dataset, for files; of several entries of a dataset the gravest is said."""
    ordered = sorted(leaks, key=lambda leak: leak.kind == "rows")
    return {leak.dataset: NotHeldOut(kind=leak.kind, sentence=str(leak)) for leak in ordered}


def leak_notes(described: Mapping[str, NotHeldOut]) -> list[str]:
    """What `describe_leaks` gives, for a terminal: datasets of which only the family is trained on share one line."""
    family = [dataset for dataset, found in described.items() if found.kind == "family"]
    if len(family) < 2:
        return [found.sentence for found in described.values()]
    others = [found.sentence for found in described.values() if found.kind != "family"]
    return [*others, f"{', '.join(family)}: no rows of them are trained on, but their families are"]


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
        source: data.source: where the training rows are, and those of a suite that names no folder.
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
        rows = [key for key in same if trained[key].overlaps(scored)] + [
            copy.dataset
            for copy in copies
            if (copy.split, copy.scored_split) == (trained[copy.dataset].name, scored.name)
            and replace(trained[copy.dataset], name=scored.name).overlaps(scored)
        ]
        kinds: list[tuple[Kind, list[str]]] = [("rows", sorted(set(rows))), ("dataset", same), ("family", family)]
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
        if kinds := {leak.kind for leak in wrong} & {"rows"}:
            ways.append("name disjoint slices in data.splits and in the suite")
        if {leak.kind for leak in wrong} - kinds:
            weakest = "rows" if any(leak.kind == "dataset" for leak in wrong) else "datasets"
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
    """`find_leaks` with the catalogue of the suite, or of the run, and the run's rows."""
    extra = suite.catalogue or run.data.catalogue
    catalogue = load_catalogue(Path(extra) if extra else None)
    return find_leaks(mixture, suite, run.data.splits, catalogue, run.data.source)
