"""Evaluation of a model on a suite: from names to files of results, in one process or several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from t0train.config import SuiteConfig
from t0train.core.console import progress, say
from t0train.core.errors import UserError
from t0train.core.files import remove_leftovers
from t0train.core.lock import hold_folder
from t0train.core.processes import follow_parent, no_interrupts_for_children
from t0train.core.run_folder import step_of
from t0train.evals.datasets import GenerationDataset, RankDataset, open_datasets
from t0train.evals.eval_config import EvalConfig
from t0train.evals.generation import GenerationScorer
from t0train.evals.models import EvalModel, ModelReference, open_model, open_vocabulary
from t0train.evals.prediction_cache import PredictionCache, fingerprint
from t0train.evals.rank import RankScorer
from t0train.mixture import build_mixture, describe_leaks, leaks_of_run
from t0train.model import check_vocabulary_size
from t0train.results.results_folder import GENERATIONS, RESULTS, SCORES, Results, check_folder, encode_tables
from t0train.results.results_json import DatasetDifference, NotHeldOut, ProbeAnswer
from t0train.results.statistics import ItemScores, paired_difference

PREDICTIONS = "predictions"
"""The folder within a folder of results that keeps the model's predictions."""


def evaluate(
    model: str | Path,
    suite: str | Path = "",
    *,
    data: str | Path = "",
    store: str | Path = "",
    limit: int | None = None,
    untrained: bool = False,
    processes: int = 1,
    out: str | Path | None = None,
) -> Results:
    """Score a model on a suite as `t0train eval` does, and write the results: for notebooks and scripts.

    Args:
        model: a run folder, a checkpoint of a run, an exported folder, or a hub id.
        suite: a name in configs/evals/ or a YAML file; empty for the suite of the model's run.
        data: folder with records, or `hub`; empty for the source of the suite or the run.
        store: folder of the token store; empty for the run's.
        limit: score at most this many records of each dataset.
        untrained: score the run's model as it was before step 1.
        processes: how many share the work, each with its own copy of the model.
        out: folder for the results; default: `RUN/eval/SUITE` (see `ModelReference.results_folder`).

    Raises:
        UserError: bad input; the folder holds results of another model or suite, or cannot be written to.
    """
    reference = ModelReference.of(model, untrained)
    config = EvalConfig.for_model(
        reference, str(suite), source=str(data), store=str(store), limit=limit, processes=processes
    )
    return evaluate_into(Path(out) if out else reference.results_folder(config.suite.name), reference, config)


def evaluate_into(folder: Path, model: ModelReference, config: EvalConfig) -> Results:
    """Evaluate, and write results into a folder. Predictions that it holds already are not computed again.

    Args:
        folder: for the results.
        model: what is evaluated.
        config: what it is evaluated on.

    Raises:
        UserError: bad input; the folder holds results of another model or suite, or cannot be written to.
    """
    predictions = (folder if step_of(folder) is None else folder.parent) / PREDICTIONS
    with hold_results(folder):
        refuse_other_results(folder, model, config)
        if config.processes > 1:
            _predict_in_processes(_Work(model, config, predictions))
        results = evaluate_model(open_model(model), config, predictions)
        results = results.model_copy(update={"not_held_out": _not_held_out(model, config)})
        results.write(folder)
    return results


@contextmanager
def hold_results(folder: Path) -> Iterator[None]:
    """Hold a folder of results: wait while another process evaluates into it, and remove what killed ones left.

    Raises:
        UserError: the folder cannot be written to.
        PreemptedError: a stop signal came while this process waited.
    """
    with hold_folder(folder, f"evaluating into {folder}", say):
        remove_leftovers(folder, exclusive=True)
        for inner in folder.rglob("*/"):
            remove_leftovers(inner)
        yield


def refuse_other_results(folder: Path, model: ModelReference, config: EvalConfig) -> None:
    """Refuse a folder with results of another model or suite, or of more records; see `check_folder`."""
    facts = model.facts
    if model.run is None and (folder / RESULTS).is_file():  # only weights, which take time, tell exported ones apart
        facts = facts.model_copy(update={"weights": fingerprint(open_model(model).model)})
    check_folder(folder, config.suite.name, facts, config.limit)


def _not_held_out(model: ModelReference, config: EvalConfig) -> dict[str, NotHeldOut] | None:
    """What the model's run has trained on of the suite's datasets; None if that is not known any more."""
    run = model.run
    if run is None:
        return None
    if model.untrained:
        return {}
    scored = config.suite.model_copy(update={"data": config.source})
    try:
        return describe_leaks(leaks_of_run(build_mixture(run.mixture, run.data), scored, run))
    except UserError:  # its mixture's records, templates or catalogue are gone
        return None


def evaluate_model(model: EvalModel, config: EvalConfig, predictions: Path | None = None) -> Results:
    """Score a model on every dataset and prompt of a suite: by rank classification, or by what it generates.

    Datasets that are not available are listed in the results.

    Args:
        model: with its vocabulary.
        config: what it is evaluated on.
        predictions: folder that keeps the model's predictions, and may hold earlier ones; see `PredictionCache`.

    Raises:
        UserError: unknown dataset or template, no dataset available, a vocabulary that is not the model's, NaN scores.
    """
    check_vocabulary_size(model.vocabulary, model.model.config)
    datasets, missing = open_datasets(config, model.vocabulary)
    cache = PredictionCache(model.model, predictions)
    with progress("evaluate", sum(sum(dataset.items) for dataset in datasets), "items") as advance:
        rank = RankScorer(model, cache, config.seed, advance)
        generation = GenerationScorer(model, cache, config.seed, advance)
        ranked = [rank.score(dataset) for dataset in datasets if isinstance(dataset, RankDataset)]
        generated = [generation.score(dataset) for dataset in datasets if isinstance(dataset, GenerationDataset)]
    scores = _joined(SCORES, [table for _, table in ranked])
    generations = _joined(GENERATIONS, [table for _, table in generated])
    parquet = encode_tables(scores, generations)
    return Results(
        model=model.facts.model_copy(update={"weights": cache.fingerprint}) if predictions else model.facts,
        suite=config.suite.name,
        source=config.source,
        limit=config.limit,
        seed=config.seed,
        tasks=tuple(result for result, _ in ranked),
        generated=tuple(result for result, _ in generated),
        differences=_differences(config.suite, scores, generations, config.seed),
        probes=_answer_probes(generation, config.suite),
        missing=tuple(missing),
        files={name: sha256(content).hexdigest() for name, content in parquet.items()},
        scores=scores,
        generations=generations,
        parquet=parquet,
    )


def _joined(schema: pa.Schema, tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *tables])


def _differences(
    suite: SuiteConfig, scores: pa.Table, generations: pa.Table, seed: int
) -> tuple[DatasetDifference, ...]:
    """The differences that the suite asks for, between datasets that were scored."""
    found = []
    for pair in suite.differences:
        of, minus = (_scored(scores, generations, dataset) for dataset in (pair.of, pair.minus))
        if of and minus:
            difference = paired_difference(of, minus, seed)
            found.append(DatasetDifference(**dict(difference), name=pair.name, of=pair.of, minus=pair.minus))
    return tuple(found)


def _scored(scores: pa.Table, generations: pa.Table, dataset: str) -> list[ItemScores]:
    """A dataset's items and their scores under each prompt; empty if it was not scored."""
    for table, column in ((scores, "right"), (generations, "score")):
        of_dataset = table.filter(pc.equal(table["dataset"], dataset))
        if of_dataset.num_rows:
            by_prompt = [
                of_dataset.filter(pc.equal(of_dataset["prompt"], name)) for name in of_dataset["prompt"].unique()
            ]
            return [(part["record"].to_numpy(), part[column].to_numpy()) for part in by_prompt]
    return []


def _answer_probes(scorer: GenerationScorer, suite: SuiteConfig) -> tuple[ProbeAnswer, ...]:
    if not suite.probes:
        return ()
    outputs = scorer.generator.generate([probe.input for probe in suite.probes])
    pairs = zip(suite.probes, outputs, strict=True)
    return tuple(ProbeAnswer(name=probe.name, input=probe.input, output=output) for probe, output in pairs)


@dataclass(frozen=True)
class _Work:
    """What a worker process must know."""

    model: ModelReference
    config: EvalConfig
    predictions: Path


class _Unit(NamedTuple):
    """One prompt (its index in its dataset) of one dataset (its index in the suite)."""

    items: int
    dataset: int
    prompt: int


def _predict_in_processes(work: _Work) -> None:
    """Fill the folder of predictions, each process with its own copy of the model; the largest prompts come first.

    The evaluation that follows reads the predictions from there: it is the same whoever has computed them.

    Raises:
        UserError: as `evaluate`; or a process died, e.g. as memory ran out. Its predictions until then are kept.
    """
    processes = work.config.processes
    datasets, _ = open_datasets(work.config, open_vocabulary(work.model))  # fills the token store, before all read it
    units = sorted(
        (_Unit(items, j, k) for j, dataset in enumerate(datasets) for k, items in enumerate(dataset.items) if items),
        reverse=True,
    )
    context = get_context("spawn")
    started: Synchronized[int] = context.Value("i", 0)
    executor = ProcessPoolExecutor(min(processes, len(units)), context, _set_up_worker, (work, started))
    try:
        with no_interrupts_for_children():
            predictions = [executor.submit(_predict, unit) for unit in units]
        with progress("predict", sum(unit.items for unit in units), "items") as advance:
            for done in as_completed(predictions):
                advance(done.result())
    except (BrokenProcessPool, BrokenPipeError) as error:  # the latter if it dies while it is being started
        raise UserError(
            f"one of the {processes} processes died, perhaps as memory ran out; its predictions until then are in "
            f"{work.predictions}: run the command again, with fewer processes (--nproc)."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


_work: _Work


def _set_up_worker(work: _Work, started: Synchronized[int]) -> None:
    """Start a worker process: it gets its share of the cores, or the next GPU."""
    import torch

    follow_parent()
    global _work
    _work = work
    with started.get_lock():
        index = started.value
        started.value += 1
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // work.config.processes))
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())


@cache
def _open_in_worker() -> tuple[RankScorer, GenerationScorer, list[RankDataset | GenerationDataset]]:
    """The model and the datasets of this process, opened with its first unit, so that errors reach the parent."""
    model = open_model(_work.model)
    datasets, _ = open_datasets(_work.config, model.vocabulary)
    cache = PredictionCache(model.model, _work.predictions)
    return RankScorer(model, cache), GenerationScorer(model, cache), datasets


def _predict(unit: _Unit) -> int:
    """Predict the items of one prompt into the folder of predictions; returns their number."""
    rank, generation, datasets = _open_in_worker()
    dataset = datasets[unit.dataset]
    if isinstance(dataset, RankDataset):
        rank.predict(dataset.prompts[unit.prompt])
    else:
        generation.predict(dataset.prompts[unit.prompt])
    return unit.items
