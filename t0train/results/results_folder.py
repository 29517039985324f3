"""Results of a suite in a folder: results.json, and Parquet files with every item's scores and every text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field

from t0train.core.errors import UserError
from t0train.core.files import make_folder, write_atomic, write_json
from t0train.core.run_folder import step_name
from t0train.results import EvalResults, EvaluatedModel, read_record

RESULTS = "results.json"
_TABLES = ("scores.parquet", "generations.parquet")
_ITEM = [
    ("dataset", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("prompt", pa.string()),
    ("record", pa.int64()),  # of the split's slice
]
SCORES = pa.schema(
    [
        *_ITEM,
        ("scores", pa.list_(pa.float64())),  # sums of log-probabilities, whatever is compared
        ("prediction", pa.int32()),
        ("gold", pa.int32()),  # -1: the gold target is no choice
        ("right", pa.float64()),  # 1 or 0; BIG-bench: the target score of the prediction
    ]
)
GENERATIONS = pa.schema(
    [
        *_ITEM,
        ("output", pa.string()),
        ("references", pa.list_(pa.string())),
        ("score", pa.float64()),  # by the dataset's first metric
    ]
)


class Results(EvalResults):
    """The results of an evaluation that has just run: what results.json says, and every item.

    Attributes:
        scores: every ranked item's scores, in the columns of `SCORES`.
        generations: everything that was written and scored, in the columns of `GENERATIONS`.
        parquet: these tables as Parquet files, by name, see `encode_tables`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    scores: pa.Table = Field(exclude=True, repr=False)
    generations: pa.Table = Field(exclude=True, repr=False)
    parquet: dict[str, bytes] = Field(exclude=True, repr=False)

    def write(self, folder: Path) -> None:
        """Write the Parquet files and results.json, each whole or not at all, results.json last.

        Results of another step of the run that are there are kept in `folder/step-XXXXXXXX/`.

        Raises:
            UserError: the folder cannot be written to.
        """
        make_folder(folder)
        _set_aside(folder, self.model.step)
        for name in set(_TABLES) - self.parquet.keys():  # of an earlier evaluation
            (folder / name).unlink(missing_ok=True)
        for name, content in self.parquet.items():
            write_atomic(folder / name, content)
        write_json(folder / RESULTS, self.as_json())


def encode_tables(scores: pa.Table, generations: pa.Table) -> dict[str, bytes]:
    """The Parquet files of those tables that hold anything, by name."""
    contents = {}
    for name, table in zip(_TABLES, (scores, generations), strict=True):
        if table.num_rows:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            contents[name] = sink.getvalue().to_pybytes()
    return contents


def _set_aside(folder: Path, step: int | None) -> None:
    """Keep the results of another step of the run, which are about to be replaced, in a folder by that step."""
    there = read_results(folder)
    if there is None or there.model.step is None or there.model.step == step:
        return
    kept = folder / step_name(there.model.step)
    before = read_results(kept)
    if before and before.is_fuller(there.datasets, there.limit):
        return
    for name in _TABLES:
        (kept / name).unlink(missing_ok=True)
        if (folder / name).is_file():
            write_atomic(kept / name, (folder / name).read_bytes())
    write_atomic(kept / RESULTS, (folder / RESULTS).read_bytes())


def read_results(folder: Path) -> EvalResults | None:
    """The results of a folder; None if there are none.

    Raises:
        UserError: its results.json is none.
    """
    path = folder / RESULTS
    try:
        return read_record(EvalResults, path) if path.is_file() else None
    except UserError as error:
        raise UserError(f"{error} Or choose another folder (--out).") from error


def check_folder(folder: Path, suite: str, model: EvaluatedModel, limit: int | None = None) -> None:
    """Refuse a folder that holds the results of another model or suite, or of more records.

    A later step of the same run is no other model.

    Args:
        folder: of the results.
        suite: name of the suite that is to be evaluated.
        model: facts about the model. A run is known by its `run` (see `run_identity`), anything else by its `weights`,
            whatever it is called; by its name where the folder does not say more.
        limit: of the records that are to be evaluated.

    Raises:
        UserError: says what is there and what was to be written.
    """
    found = read_results(folder)
    if found is None:
        return
    there = found.model
    if not _is_same_model(there, model) and there.name == model.name:
        differing = "recipe or seed" if model.run else "weights"
        what = f"of another model that is called {model.name!r}, too (other {differing})"
    elif not _is_same_model(there, model):
        what = f"of model {there.name!r}, these are of model {model.name!r}"
    elif there.untrained != model.untrained:
        what = f"of untrained {there.untrained}, these are of untrained {model.untrained}"
    elif found.suite != suite:
        what = f"of suite {found.suite!r}, these are of suite {suite!r}"
    elif found.has_more_records(limit):
        records = "all records" if found.limit is None else f"up to {found.limit:,} records of a dataset"
        what = f"of {records}, these are of up to {limit:,}"
    else:
        return
    raise UserError(f"{folder} holds the results {what}; choose another folder (--out), or remove the old one.")


def _is_same_model(there: EvaluatedModel, here: EvaluatedModel) -> bool:
    if there.run != here.run:
        return False
    if here.run is None and there.weights and here.weights:
        return there.weights == here.weights
    return there.name == here.name
