"""What a run folder holds, read once: configuration, deviations, events, evaluation results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import numpy as np
from pydantic import ConfigDict, Field

from t0train.config import RunConfig, load_config, run_identity
from t0train.config.load import read_unchecked
from t0train.config.suite import OVERLAPS
from t0train.core.errors import UserError
from t0train.core.events import read_events
from t0train.core.hashing import content_hash, file_sha256
from t0train.core.run_folder import MANIFEST, UNTRAINED, RunFolder, step_name
from t0train.results import EvalResults, OverlapReport, Record, Selection, check_record, read_record
from t0train.results.record import MOST, Count, Many, Share
from t0train.results.statistics import ItemScores

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")
Items: TypeAlias = dict[tuple[str, str], dict[str, ItemScores]]
"""By dataset and split: for each task the records and their scores."""

_ITEM_FILES = {"scores.parquet": "right", "generations.parquet": "score"}
"""With the column that holds an item's score."""
_ITEM_COLUMNS = {"dataset": "string", "split": "string", "task": "string", "record": "int64"}


class LoggedEvent(Record):
    """A line of the log; what its kind does not name is kept: curves are drawn of whatever is logged."""

    model_config = ConfigDict(extra="allow")

    kind: str

    def value(self, key: str) -> Any:
        """What was logged under a key; None for nothing."""
        return getattr(self, key, None)


class StartEvent(LoggedEvent):
    """A process group has started to train: the probability of each task, the mixture's hash, what was remarked."""

    probabilities: dict[str, Share] = Field({})
    mixture: str = ""
    remarks: Many[str] = ()


class StepEvent(LoggedEvent):
    """A training step. `tokens` are those of targets, `rows` packed ones, fills shares of their slots."""

    step: Count
    cross_entropy: float
    tokens: Count
    examples: Count
    rows: Annotated[int, Field(ge=1, le=MOST)]
    fill_inputs: Share
    fill_targets: Share
    tasks: dict[str, Count] = Field({})


class SpeedEvent(LoggedEvent):
    """How fast the steps until `step` were."""

    step: Count


_KINDS: dict[str, type[LoggedEvent]] = {"start": StartEvent, "step": StepEvent, "speed": SpeedEvent}


class _ModelKeys(Record):
    init_from: str | None = None
    size: Any = None
    dropout: Any = None
    dropout_style: Any = None


class _MixtureKeys(Record):
    name: Any = None


class _DataKeys(Record):
    max_inputs: Any = None
    max_targets: Any = None


class _BatchKeys(Record):
    rows: Count | None = None
    examples: Count | None = None


class _TrainKeys(Record):
    steps: Count = 0
    batch: _BatchKeys = _BatchKeys()
    precision: Any = None


class _OptimizerKeys(Record):
    name: Any = None
    lr: Any = None
    schedule: Any = None


class RecipeKeys(Record):
    """The keys of a configuration that reports show, written by whatever version of t0train."""

    name: str = ""
    seed: Any = None
    model: _ModelKeys = _ModelKeys()
    mixture: _MixtureKeys = _MixtureKeys()
    data: _DataKeys = _DataKeys()
    train: _TrainKeys = _TrainKeys()
    optimizer: _OptimizerKeys = _OptimizerKeys()


class DeviationSentence(Record):
    """One key that differs from T0's recipe."""

    sentence: str


@dataclass(frozen=True)
class RunData:
    """One run folder in memory.

    Attributes:
        name: of the run; with its folder where runs of one name are compared.
        folder: the run folder.
        config: the resolved configuration as its file has it.
        recipe: the keys of it that reports show.
        deviations: a sentence for each key that differs from T0's recipe; None: the folder has no deviations.json.
        starts: the log's events of starting processes.
        steps: those of training steps.
        speeds: those on speed.
        results: by suite.
        untrained: results of the model before training, by suite.
        selections: comparisons of checkpoints, by suite.
        overlaps: what the suite's texts share with the training records, by suite.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    recipe: RecipeKeys
    deviations: tuple[str, ...] | None
    starts: tuple[StartEvent, ...]
    steps: tuple[StepEvent, ...]
    speeds: tuple[SpeedEvent, ...]
    results: dict[str, EvalResults]
    untrained: dict[str, EvalResults]
    selections: dict[str, Selection]
    overlaps: dict[str, OverlapReport]

    @property
    def config_hash(self) -> str:
        """Content hash of the resolved configuration."""
        return content_hash(self.config)

    def items(self, suite: str) -> Items:
        """Every scored item of a suite that the run was evaluated on. Raises as `read_items`."""
        return read_items(RunFolder(self.folder).results(suite), self.results[suite].files)


def read_run(folder: Path, step: int | None = None) -> RunData:
    """Read a run folder; what has not been written yet (no step, no evaluation) is simply empty.

    Args:
        folder: run folder.
        step: take the results of this checkpoint where a suite has some of it besides those of the final one.

    Raises:
        UserError: the folder is no run folder, one of its files is damaged, or results in it are of another run.
    """
    run = RunFolder.require(folder)
    config = read_unchecked(RunConfig, run.config)
    recipe = check_record(RecipeKeys, config, str(run.config))
    log = list(_read_log(run.events)) if run.events.is_file() else []
    scores = {path.parent.name: _read_results(folder, path) for path in sorted(run.evaluations.glob("*/results.json"))}
    if step is not None:
        for path in sorted(run.evaluations.glob(f"*/{step_name(step)}/results.json")):
            suite = path.parent.parent.name
            if suite not in scores or scores[suite].model.step != step:
                scores[suite] = _read_results(folder, path)
    return RunData(
        name=recipe.name or folder.resolve().name,
        folder=folder,
        config=config,
        recipe=recipe,
        deviations=_read_deviations(run.deviations) if run.deviations.is_file() else None,
        starts=tuple(event for event in log if isinstance(event, StartEvent)),
        steps=tuple(event for event in log if isinstance(event, StepEvent)),
        speeds=tuple(event for event in log if isinstance(event, SpeedEvent)),
        results={suite: found for suite, found in scores.items() if not suite.endswith(UNTRAINED)},
        untrained={
            suite.removesuffix(UNTRAINED): found for suite, found in scores.items() if suite.endswith(UNTRAINED)
        },
        selections=_read_by_suite(Selection, run.evaluations, "selection.json"),
        overlaps=_read_by_suite(OverlapReport, run.evaluations, OVERLAPS),
    )


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """Read several run folders; runs that share a name get that of their folder, too.

    Raises:
        UserError: as `read_run`, or one folder twice.
    """
    known = [folder.resolve() for folder in folders]
    for place, folder in enumerate(known):
        if folder in known[:place]:
            raise UserError(f"{folders[place]} is given twice; a run is compared with others: name each of them once.")
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else replace(run, name=f"{run.name} ({run.folder})") for run in runs]


def _read_results(run: Path, path: Path) -> EvalResults:
    """A results.json, if it is of this run.

    Raises:
        UserError: damaged, of another run, or of another checkpoint than the one that has its step now.
    """
    found = read_record(EvalResults, path)
    model = found.model
    if model.run and model.run != run_identity(load_config(RunFolder(run).config)):
        raise UserError(
            f"{path} holds results of another run ({model.name!r}, of another recipe or seed than {run}); move "
            "them out of the run folder, or evaluate again with `t0train eval`."
        )
    manifest = RunFolder(run).checkpoint(model.step or 0) / MANIFEST
    if model.checkpoint and manifest.is_file() and file_sha256(manifest) != model.checkpoint:
        raise UserError(
            f"{path} holds results of another checkpoint of step {model.step or 0:,} than the one in {run}; evaluate "
            "again with `t0train eval`, or remove them."
        )
    return found


def _read_by_suite(kind: type[R], evaluations: Path, name: str) -> dict[str, R]:
    return {path.parent.name: read_record(kind, path) for path in sorted(evaluations.glob(f"*/{name}"))}


def _read_deviations(path: Path) -> tuple[str, ...]:
    return tuple(one.sentence for one in read_record(list[DeviationSentence], path))


def _read_log(path: Path) -> Iterator[LoggedEvent]:
    try:
        for line, event in enumerate(read_events(path), 1):
            yield check_record(_KINDS.get(event["kind"], LoggedEvent), event, f"{path}, line {line}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def suites(runs: Sequence[RunData]) -> list[str]:
    """Names of the suites that at least one run was evaluated on."""
    return sorted({suite for run in runs for suite in run.results})


def results_of(runs: Sequence[RunData], suite: str) -> Iterator[tuple[RunData, EvalResults]]:
    """The runs that were evaluated on a suite, with their results."""
    for run in runs:
        if suite in run.results:
            yield run, run.results[suite]


def read_items(folder: Path, digests: Mapping[str, str]) -> Items:
    """All items of an evaluation folder; empty if it holds no Parquet file.

    Args:
        folder: that results.json is in.
        digests: SHA-256 of the Parquet files, as results.json names them.

    Raises:
        UserError: a file that is damaged, or is not the one that results.json names.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: Items = {}
    for name, column in _ITEM_FILES.items():
        path = folder / name
        if not path.is_file() and name not in digests:
            continue
        _check_digest(path, digests.get(name))
        try:
            table = pq.read_table(path, columns=[*_ITEM_COLUMNS, column])
            table = table.cast(pa.schema([*_ITEM_COLUMNS.items(), (column, "float64")]))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        _add_items(found, table, column, path)
    return found


def _check_digest(path: Path, expected: str | None) -> None:
    if not path.is_file():
        what = "is missing, but the results.json in its folder names it"
    elif expected is None:
        what = "is not named by the results.json in its folder"
    elif file_sha256(path) != expected:
        what = "is not the file that the results.json in its folder names (other SHA-256)"
    else:
        return
    raise UserError(f"{path} {what}: it is of another evaluation or was changed; evaluate again with `t0train eval`.")


def _add_items(found: Items, table: pa.Table, column: str, path: Path) -> None:
    keys = [table[name].to_numpy(zero_copy_only=False) for name in ("dataset", "split", "task")]
    records, scores = table["record"].to_numpy(), table[column].to_numpy()
    if any(table[name].null_count for name in table.column_names):
        raise UserError(f"{path} is damaged: it holds empty cells.")
    if not ((scores >= 0) & (scores <= 1)).all() or (records < 0).any():
        raise UserError(f"{path} is damaged: scores are between 0 and 1, records not negative.")
    changes = np.zeros(len(records), dtype=bool)
    for values in keys:
        changes[1:] |= values[1:] != values[:-1]
    for part in np.split(np.arange(len(records)), np.flatnonzero(changes)):
        if len(part):
            dataset, split, task = (str(values[part[0]]) for values in keys)
            tasks = found.setdefault((dataset, split), {})
            if task in tasks or len(np.unique(records[part])) < len(part):
                raise UserError(f"{path} is damaged: a record of {dataset} {split} is there twice under task {task}.")
            tasks[task] = (records[part], scores[part])
