"""A model on a suite: all prompts of a dataset are scored in one pass over the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from t0train.config import SuiteConfig
from t0train.core.console import progress
from t0train.data import Vocabulary
from t0train.evals.datasets import build_jobs
from t0train.evals.prediction_cache import Answerer
from t0train.evals.ranked import evaluate_choices
from t0train.evals.written import evaluate_texts
from t0train.model import T5, check_vocabulary_size
from t0train.results import EvaluatedModel
from t0train.results.results_folder import GENERATIONS, SCORES, Results, encode_tables
from t0train.results.results_json import DatasetDifference, ProbeAnswer
from t0train.results.statistics import Scored, paired_difference
from t0train.tasks import Dataset


def evaluate_model(
    model: T5,
    vocabulary: Vocabulary,
    suite: SuiteConfig,
    source: str = "hub",
    store: str = "",
    catalogue: Mapping[str, Dataset] | None = None,
    templates: Sequence[Path] = (),
    limit: int | None = None,
    seed: int = 0,
    facts: EvaluatedModel | None = None,
    answers: Path | None = None,
) -> Results:
    """Score a model on every dataset and prompt of a suite: by rank classification, or by what it writes.

    Datasets that are not at hand are listed in the results.

    Args:
        model: on the device that it shall run on.
        vocabulary: of the model.
        suite: datasets, splits, prompts and metrics.
        source: `hub`, or a folder with rows.
        store: folder of the token store; empty for the one in the user's cache.
        catalogue: known datasets; default: t0train's own.
        templates: template folders that are searched before promptsource's collection.
        limit: score at most this many rows of each dataset, the same ones under every prompt.
        seed: of drawn rows, drawn prompts, templates that draw at random, and the bootstrap.
        facts: what to say about the model in the results.
        answers: folder that keeps the model's answers to each task as they come, and answers of before; see `Answerer`.

    Raises:
        UserError: unknown dataset or template, no dataset at hand, a vocabulary that is not the model's, NaN scores.
    """
    check_vocabulary_size(vocabulary, model.config)
    jobs, missing = build_jobs(vocabulary, suite, source, store, catalogue, templates, limit, seed)
    answerer = Answerer(model, vocabulary, answers)
    with progress("evaluate", sum(job.items for job in jobs), "items") as advance:
        ranked = [evaluate_choices(answerer, job, seed, advance) for job in jobs if job.ranked]
        generated = [evaluate_texts(answerer, job, seed, advance) for job in jobs if job.texts]
    scores = _joined(SCORES, [table for _, table in ranked])
    generations = _joined(GENERATIONS, [table for _, table in generated])
    parquet = encode_tables(scores, generations)
    described = facts or EvaluatedModel()
    return Results(
        model=described.model_copy(update={"weights": answerer.fingerprint}) if answers else described,
        suite=suite.name,
        source=source,
        limit=limit,
        seed=seed,
        tasks=tuple(result for result, _ in ranked),
        generated=tuple(result for result, _ in generated),
        differences=_differences(suite, scores, generations, seed),
        probes=_answer_probes(answerer, suite),
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
    for asked in suite.differences:
        of, minus = (_scored(scores, generations, dataset) for dataset in (asked.of, asked.minus))
        if of and minus:
            difference = paired_difference(of, minus, seed)
            found.append(DatasetDifference(**dict(difference), name=asked.name, of=asked.of, minus=asked.minus))
    return tuple(found)


def _scored(scores: pa.Table, generations: pa.Table, dataset: str) -> list[Scored]:
    """A dataset's items and their scores under each prompt; empty if it was not scored."""
    for table, column in ((scores, "right"), (generations, "score")):
        of_dataset = table.filter(pc.equal(table["dataset"], dataset))
        if of_dataset.num_rows:
            by_prompt = [
                of_dataset.filter(pc.equal(of_dataset["prompt"], name)) for name in of_dataset["prompt"].unique()
            ]
            return [(part["row"].to_numpy(), part[column].to_numpy()) for part in by_prompt]
    return []


def _answer_probes(answerer: Answerer, suite: SuiteConfig) -> tuple[ProbeAnswer, ...]:
    if not suite.probes:
        return ()
    outputs = answerer.generator.generate([probe.input for probe in suite.probes])
    pairs = zip(suite.probes, outputs, strict=True)
    return tuple(ProbeAnswer(name=probe.name, input=probe.input, output=output) for probe, output in pairs)
