"""Results of a suite: one JSON with all statistics, Parquet files with every item's scores and every text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from t0train.core.bootstrap import Difference
from t0train.core.errors import UserError
from t0train.core.files import make_folder, write_atomic, write_json
from t0train.evals.statistics import AccuracySpread, PromptScore, PromptStatistics, Spread
from t0train.evals.suites import Missing

RESULTS = "results.json"
_TABLES = ("scores.parquet", "generations.parquet")
_ITEM = [
    ("dataset", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("prompt", pa.string()),
    ("row", pa.int64()),  # of the split's slice
]
SCORES = pa.schema(
    [
        *_ITEM,
        ("scores", pa.list_(pa.float64())),
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


def _over_prompts(metrics: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and mean over the prompts that have a metric."""
    values: dict[str, list[float]] = {}
    for of_prompt in metrics:
        for name, value in of_prompt.items():
            values.setdefault(name, []).append(value)
    return {name: {"median": float(np.median(some)), "mean": float(np.mean(some))} for name, some in values.items()}


@dataclass(frozen=True)
class PromptResult:
    """One prompt of a ranked dataset.

    Attributes:
        name: of the template; of the sub-task in BIG-bench.
        task: of dataset and prompt together.
        identity: hash of what is asked and how answers are judged, whichever of the rows were drawn: two results with
            the same one can be compared row by row.
        statistics: of its accuracy.
        metrics: further ones that the suite asks for.
        remarks: what is odd about its items, with their number: empty, cut or equal choices, skipped examples.
    """

    name: str
    task: str
    identity: str
    statistics: PromptStatistics
    metrics: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        numbers = asdict(self.statistics)
        names = {"name": self.name, "task": self.task, "identity": self.identity}
        return {**names, **numbers, "metrics": self.metrics, "remarks": self.remarks}


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, to look at. `gold` is None if the right one is no choice."""

    prompt: str
    row: int
    input: str
    answer: str
    gold: str | None


@dataclass(frozen=True)
class DatasetResult:
    """All prompts of one ranked dataset and split.

    Attributes:
        dataset: its key.
        split: as the suite writes it.
        family: kind of task.
        revision: identity of its rows.
        spread: statistics over prompts.
        prompts: each prompt.
        not_ranked: prompts left out, with the reason.
        caveat: what to know before reading anything into the figures.
        mistakes: some wrong answers under the prompt with the lowest accuracy.
    """

    dataset: str
    split: str
    family: str
    revision: str
    spread: AccuracySpread
    prompts: tuple[PromptResult, ...]
    not_ranked: dict[str, str]
    caveat: str = ""
    mistakes: tuple[Mistake, ...] = ()

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Median and mean over prompts of the metrics beside the accuracy."""
        return _over_prompts([prompt.metrics for prompt in self.prompts])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "family": self.family,
            "revision": self.revision,
            **asdict(self.spread),
            "metrics": self.metrics,
            "prompts": [prompt.as_dict() for prompt in self.prompts],
            "not_ranked": self.not_ranked,
            "caveat": self.caveat,
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
        }


@dataclass(frozen=True)
class GeneratedPrompt:
    """One prompt of a generated dataset: its score by the first metric, and all metrics. `identity` as ranked ones."""

    name: str
    task: str
    identity: str
    score: PromptScore
    metrics: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = {"name": self.name, "task": self.task, "identity": self.identity}
        return {**names, **asdict(self.score), "metrics": self.metrics}


@dataclass(frozen=True)
class GeneratedResult:
    """All prompts of one generated dataset and split; `spread` is that of the first metric, `metric`."""

    dataset: str
    split: str
    family: str
    revision: str
    metric: str
    spread: Spread
    prompts: tuple[GeneratedPrompt, ...]
    left_out: dict[str, str]
    caveat: str = ""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Median and mean over prompts of every metric."""
        return _over_prompts([prompt.metrics for prompt in self.prompts])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "family": self.family,
            "revision": self.revision,
            "metric": self.metric,
            **asdict(self.spread),
            "metrics": self.metrics,
            "prompts": [prompt.as_dict() for prompt in self.prompts],
            "left_out": self.left_out,
            "caveat": self.caveat,
        }


@dataclass(frozen=True)
class DifferenceResult:
    """The scores of one dataset minus those of another, row by row."""

    name: str
    of: str
    minus: str
    difference: Difference

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"name": self.name, "of": self.of, "minus": self.minus, **asdict(self.difference)}


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
        not_held_out: what the model's own training shares with datasets of the suite, a sentence for each of them; None
            if its training is not known.
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
    not_held_out: dict[str, str] | None = None
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
    def files(self) -> dict[str, pa.Table]:
        """The Parquet files by name: scores of ranked items, texts of generated ones, where there are any."""
        tables = dict(zip(_TABLES, (self.scores, self.generations), strict=True))
        return {name: table for name, table in tables.items() if table.num_rows}

    def write(self, folder: Path) -> None:
        """Write the Parquet files and results.json, each whole or not at all, results.json last.

        Raises:
            UserError: the folder cannot be written to.
        """
        make_folder(folder)
        for name in set(_TABLES) - self.files.keys():  # of an earlier evaluation
            (folder / name).unlink(missing_ok=True)
        for name, table in self.files.items():
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            write_atomic(folder / name, sink.getvalue().to_pybytes())
        write_json(folder / RESULTS, self.as_dict())


def check_folder(folder: Path, suite: str, model: Mapping[str, Any]) -> None:
    """Refuse a folder that holds the results of another model or suite. A later step of the same run is no other model.

    Args:
        folder: of the results.
        suite: name of the suite that is to be evaluated.
        model: facts about the model. A run is known by its `run` (see `run_identity`), anything else by its `weights`,
            whatever it is called; by its name where the folder does not say more.

    Raises:
        UserError: says what is there and what was to be written.
    """
    path = folder / RESULTS
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        there, there_suite = dict(found["model"]), found["suite"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no results file of t0train ({error!r}); choose another folder (--out).") from error
    if not _is_same_model(there, model) and there.get("name") == model["name"]:
        differing = "recipe or seed" if model.get("run") else "weights"
        what = f"of another model that is called {model['name']!r}, too (other {differing})"
    elif not _is_same_model(there, model):
        what = f"of model {there.get('name')!r}, these are of model {model['name']!r}"
    elif there.get("untrained") != model["untrained"]:
        what = f"of untrained {there.get('untrained')}, these are of untrained {model['untrained']}"
    elif there_suite != suite:
        what = f"of suite {there_suite!r}, these are of suite {suite!r}"
    else:
        return
    raise UserError(f"{folder} holds the results {what}; choose another folder (--out), or remove the old one.")


def _is_same_model(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    if "run" in there and there["run"] != here.get("run"):
        return False
    if not here.get("run") and there.get("weights") and here.get("weights"):
        return bool(there["weights"] == here["weights"])
    return bool(there.get("name") == here["name"])
