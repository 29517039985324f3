"""What is generated: the model's answers to the prompts without answer choices, and how good they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from t0train.evals.datasets import Job, TextPrompt
from t0train.evals.eval_config import SuiteEntry
from t0train.evals.metrics import constant_answer, corpus_bleu, item_scores
from t0train.evals.prediction_cache import Answerer
from t0train.results.results_folder import GENERATIONS
from t0train.results.results_json import GeneratedPromptScore, GeneratedScore
from t0train.results.statistics import mean_baselines, over_prompts, spread_over_prompts


def evaluate_texts(
    answerer: Answerer,
    job: Job,
    seed: int,
    advance: Callable[[float], object],
) -> tuple[GeneratedScore, pa.Table]:
    """Let the model answer every prompt, and score the answers."""
    entry = job.entry
    left_out = {prompt.task.template.name: "applies to no row" for prompt in job.texts if not prompt.inputs}
    prompts = [prompt for prompt in job.texts if prompt.inputs]
    longest = entry.spec.max_new_tokens
    outputs = [answerer.texts(prompt.task.name, prompt.inputs, longest, advance) for prompt in prompts]
    headline: str = entry.spec.metrics[0]
    scored: list[dict[str, NDArray[np.float64]]] = [
        {metric: item_scores(metric, some, prompt.references) for metric in entry.spec.metrics if metric != "bleu"}
        for prompt, some in zip(prompts, outputs, strict=True)
    ]
    scores, spread = spread_over_prompts(
        [(prompt.rows, values[headline]) for prompt, values in zip(prompts, scored, strict=True)], seed
    )
    results = []
    for prompt, some, values, one in zip(prompts, outputs, scored, scores, strict=True):
        constant = constant_answer(prompt.references)
        everywhere = [constant] * len(some)
        metrics = {metric: float(of_items.mean()) for metric, of_items in values.items()}
        baselines = {metric: float(item_scores(metric, everywhere, prompt.references).mean()) for metric in metrics}
        if "bleu" in entry.spec.metrics:
            metrics["bleu"] = corpus_bleu(some, prompt.references)
            baselines["bleu"] = corpus_bleu(everywhere, prompt.references)
        results.append(
            GeneratedPromptScore(
                **dict(one),
                name=prompt.task.template.name,
                task=prompt.task.name,
                identity=prompt.identity,
                metrics=metrics,
                constant_answer=constant,
                metric_baselines={metric: {"constant": value} for metric, value in baselines.items()},
                remarks=prompt.remarks,
            )
        )
    result = GeneratedScore(
        **dict(spread),
        dataset=entry.dataset.key,
        split=entry.split,
        family=entry.dataset.family,
        revision=job.revision,
        metric=headline,
        prompts=tuple(results),
        metrics=over_prompts([prompt.metrics for prompt in results]),
        metric_baselines=mean_baselines([prompt.metric_baselines for prompt in results]),
        left_out={**entry.left_out, **left_out},
        caveat=entry.spec.caveat,
    )
    tables = [
        _table(entry, prompt, some, values[headline])
        for prompt, some, values in zip(prompts, outputs, scored, strict=True)
    ]
    return result, pa.concat_tables(tables)


def _table(entry: SuiteEntry, prompt: TextPrompt, outputs: list[str], scores: NDArray[np.float64]) -> pa.Table:
    rows = len(outputs)
    columns = {
        "dataset": [entry.dataset.key] * rows,
        "split": [entry.split] * rows,
        "task": [prompt.task.name] * rows,
        "prompt": [prompt.task.template.name] * rows,
        "row": prompt.rows,
        "output": outputs,
        "references": prompt.references,
        "score": scores,
    }
    return pa.table(columns, schema=GENERATIONS)
