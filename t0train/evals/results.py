"""Results of a suite: one JSON with all statistics, Parquet files with every item's scores and every text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from t0train.core.errors import UserError
from t0train.core.files import make_folder, write_atomic, write_json
from t0train.core.run_folder import step_name
from t0train.evals.dataset_results import GENERATIONS, SCORES, DatasetResult, DifferenceResult, GeneratedResult
from t0train.evals.suites import Missing

RESULTS = "results.json"
_TABLES = ("scores.parquet", "generations.parquet")


@dataclass(frozen=True)
class Results:
    """A model on a suite.

    Attributes:
        model: what was evaluated, as facts: name, step, ...
        suite: name of the suite.
        source: where the rows came from.
        limit: rows scored at most per dataset, beside the suite's own limits; None for no limit.
        seed: of the drawn rows, the drawn prompts and the bootstrap.
        tasks: one entry per ranked dataset and split.
        generated: one entry per generated dataset and split.
        differences: between datasets, as the suite asks for.
        probes: name, input and output of prompts that are not scored.
        missing: datasets of the suite that could not be scored.
        not_held_out: what the model's own training shares with datasets of the suite, for each of them its kind (rows,
            dataset or family) and a sentence; None if its training is not known.
        scores: every ranked item's scores, in the columns of `SCORES`.
        generations: everything that was written and scored, in the columns of `GENERATIONS`.
    """

    model: dict[str, Any]
    suite: str
    source: str
    limit: int | None
    seed: int
    tasks: tuple[DatasetResult, ...] = ()
    generated: tuple[GeneratedResult, ...] = ()
    differences: tuple[DifferenceResult, ...] = ()
    probes: tuple[dict[str, str], ...] = ()
    missing: tuple[Missing, ...] = ()
    not_held_out: dict[str, dict[str, str]] | None = None
    scores: pa.Table = field(default_factory=SCORES.empty_table, repr=False)
    generations: pa.Table = field(default_factory=GENERATIONS.empty_table, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """All but the scores and generations of single items, as plain values."""
        return {
            "model": self.model,
            "suite": self.suite,
            "source": self.source,
            "limit": self.limit,
            "seed": self.seed,
            "tasks": [task.as_dict() for task in self.tasks],
            "generated": [task.as_dict() for task in self.generated],
            "differences": [difference.as_dict() for difference in self.differences],
            "probes": list(self.probes),
            "missing": [asdict(missing) for missing in self.missing],
            "not_held_out": self.not_held_out,
            "files": {name: sha256(content).hexdigest() for name, content in self._parquet.items()},
        }

    @property
    def caveats(self) -> dict[str, list[str]]:
        """The datasets that each caveat belongs to."""
        found: dict[str, list[str]] = {}
        for dataset, caveat in [
            *((task.dataset, task.caveat) for task in self.tasks),
            *((task.dataset, task.caveat) for task in self.generated),
        ]:
            if caveat:
                found.setdefault(caveat, []).append(dataset)
        return found

    @property
    def datasets(self) -> frozenset[tuple[str, str]]:
        """Dataset and split of each entry."""
        return frozenset((task.dataset, task.split) for task in (*self.tasks, *self.generated))

    @property
    def files(self) -> dict[str, pa.Table]:
        """The Parquet files by name: scores of ranked items, texts of generated ones, where there are any."""
        tables = dict(zip(_TABLES, (self.scores, self.generations), strict=True))
        return {name: table for name, table in tables.items() if table.num_rows}

    @cached_property
    def _parquet(self) -> dict[str, bytes]:
        """The content of the Parquet files by name; results.json names their SHA-256."""
        contents = {}
        for name, table in self.files.items():
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            contents[name] = sink.getvalue().to_pybytes()
        return contents

    def write(self, folder: Path) -> None:
        """Write the Parquet files and results.json, each whole or not at all, results.json last.

        Results of another step of the run that stand there are kept in `folder/step-XXXXXXXX/`.

        Raises:
            UserError: the folder cannot be written to.
        """
        make_folder(folder)
        _set_aside(folder, self.model.get("step"))
        for name in set(_TABLES) - self.files.keys():  # of an earlier evaluation
            (folder / name).unlink(missing_ok=True)
        for name, content in self._parquet.items():
            write_atomic(folder / name, content)
        write_json(folder / RESULTS, self.as_dict())


def _set_aside(folder: Path, step: int | None) -> None:
    """Keep the results of another step of the run, which are about to be replaced, in a folder by that step."""
    there = read_results(folder)
    if there is None or there.step is None or there.step == step:
        return
    kept = folder / step_name(there.step)
    before = read_results(kept)
    if before and before.is_fuller(there.datasets, there.limit):
        return
    for name in _TABLES:
        (kept / name).unlink(missing_ok=True)
        if (folder / name).is_file():
            write_atomic(kept / name, (folder / name).read_bytes())
    write_atomic(kept / RESULTS, (folder / RESULTS).read_bytes())


@dataclass(frozen=True)
class WrittenResults:
    """What a results.json says it holds.

    Attributes:
        model: facts about the model.
        suite: name of the suite.
        limit: rows scored at most per dataset; None for no limit.
        datasets: dataset and split of each entry.
    """

    model: dict[str, Any]
    suite: str
    limit: int | None
    datasets: frozenset[tuple[str, str]]

    @property
    def step(self) -> int | None:
        """Of the checkpoint; None for what is no run."""
        step = self.model.get("step")
        return step if isinstance(step, int) else None

    def is_fuller(self, datasets: Set[tuple[str, str]], limit: int | None) -> bool:
        """Whether something would be lost if results of these datasets and rows took their place."""
        return not self.datasets <= datasets or _more_rows(self.limit, limit)


def _more_rows(one: int | None, other: int | None) -> bool:
    return other is not None and (one is None or one > other)


def read_results(folder: Path) -> WrittenResults | None:
    """What the results.json of a folder holds; None if there is none.

    Raises:
        UserError: it is no results file.
    """
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        entries = [*found["tasks"], *found.get("generated", [])]
        datasets = frozenset((str(entry["dataset"]), str(entry["split"])) for entry in entries)
        limit = None if found["limit"] is None else int(found["limit"])
        return WrittenResults(dict(found["model"]), str(found["suite"]), limit, datasets)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no results file of t0train ({error!r}); choose another folder (--out).") from error


def check_folder(folder: Path, suite: str, model: Mapping[str, Any], limit: int | None = None) -> None:
    """Refuse a folder that holds the results of another model or suite, or of more rows.

    A later step of the same run is no other model.

    Args:
        folder: of the results.
        suite: name of the suite that is to be evaluated.
        model: facts about the model. A run is known by its `run` (see `run_identity`), anything else by its `weights`,
            whatever it is called; by its name where the folder does not say more.
        limit: of the rows that are to be evaluated.

    Raises:
        UserError: says what is there and what was to be written.
    """
    found = read_results(folder)
    if found is None:
        return
    there = found.model
    if not _is_same_model(there, model) and there.get("name") == model["name"]:
        differing = "recipe or seed" if model.get("run") else "weights"
        what = f"of another model that is called {model['name']!r}, too (other {differing})"
    elif not _is_same_model(there, model):
        what = f"of model {there.get('name')!r}, these are of model {model['name']!r}"
    elif there.get("untrained") != model["untrained"]:
        what = f"of untrained {there.get('untrained')}, these are of untrained {model['untrained']}"
    elif found.suite != suite:
        what = f"of suite {found.suite!r}, these are of suite {suite!r}"
    elif _more_rows(found.limit, limit):
        rows = "all rows" if found.limit is None else f"up to {found.limit:,} rows of a dataset"
        what = f"of {rows}, these are of up to {limit:,}"
    else:
        return
    raise UserError(f"{folder} holds the results {what}; choose another folder (--out), or remove the old one.")


def _is_same_model(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    if "run" in there and there["run"] != here.get("run"):
        return False
    if not here.get("run") and there.get("weights") and here.get("weights"):
        return bool(there["weights"] == here["weights"])
    return bool(there.get("name") == here["name"])
