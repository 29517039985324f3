"""What is ranked: the answers that a model chooses to the prompts with answer choices, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from t0train.config.suite import Normalise
from t0train.core.hashing import content_hash
from t0train.data import Vocabulary
from t0train.evals.datasets import Job, RankedPrompt
from t0train.evals.eval_config import SINGLE_CHOICE, SuiteEntry
from t0train.evals.prediction_cache import Answerer
from t0train.evals.rank import MAX_INPUTS, MAX_TARGETS, Scores, Tokens
from t0train.results.results_folder import SCORES
from t0train.results.results_json import Mistake, RankedPromptScore, RankedScore
from t0train.results.statistics import Answers, f1_of_prompts, mean_baselines, over_prompts, summarise

_MISTAKES = 3  # shown of each dataset's worst prompt


def evaluate_choices(
    answerer: Answerer, job: Job, seed: int, advance: Callable[[float], object]
) -> tuple[RankedScore, pa.Table]:
    """Score and summarise all prompts of a dataset that apply to at least one of its rows."""
    entry = job.entry
    left_out = {prompt.name: "applies to no row" for prompt in job.ranked if not len(prompt.rows)}
    prompts = [prompt for prompt in job.ranked if len(prompt.rows)]
    groups = [answerer.scores(prompt, advance) for prompt in prompts]
    divide = partial(_lengths, entry.spec.normalise, answerer.vocabulary)
    answers = [_answers(prompt, values, divide) for prompt, values in zip(prompts, groups, strict=True)]
    statistics, spread = summarise(answers, seed)
    f1s, f1_interval = f1_of_prompts(answers, seed) if "f1" in entry.spec.metrics else ([None] * len(prompts), None)
    scores = tuple(
        RankedPromptScore(
            **dict(one),
            name=prompt.name,
            task=prompt.task,
            identity=_identity(prompt, entry.spec.normalise),
            metrics={"f1": f1.value} if f1 else {},
            metric_intervals={"f1": f1.interval} if f1 else {},
            metric_baselines={"f1": {"chance": f1.chance, "majority": f1.majority}} if f1 else {},
            remarks=_remarks(prompt),
        )
        for prompt, one, f1 in zip(prompts, statistics, f1s, strict=True)
    )
    result = RankedScore(
        **dict(spread),
        dataset=entry.dataset.key,
        split=entry.split,
        family=entry.dataset.family,
        revision=job.revision,
        prompts=scores,
        metrics=over_prompts([score.metrics for score in scores]),
        metric_intervals={"f1": f1_interval} if f1_interval else {},
        metric_baselines=mean_baselines([score.metric_baselines for score in scores]),
        left_out={**entry.left_out, **left_out},
        normalise=entry.spec.normalise,
        caveat=entry.spec.caveat,
        mistakes=_mistakes(answerer.vocabulary, prompts, answers),
    )
    return result, pa.concat_tables([_table(entry, *parts) for parts in zip(prompts, groups, answers, strict=True)])


def _mistakes(
    vocabulary: Vocabulary, prompts: Sequence[RankedPrompt], answers: Sequence[Answers]
) -> tuple[Mistake, ...]:
    """The first wrong answers under the prompt with the lowest accuracy."""
    worst = min(range(len(prompts)), key=lambda k: answers[k].scores.mean())
    prompt, given = prompts[worst], answers[worst]
    mistakes = []
    for i in np.flatnonzero(given.scores == 0)[:_MISTAKES].tolist():
        inputs, choices = prompt.item(i)
        texts = [vocabulary.decode(choice) for choice in choices]
        gold = given.gold[i]
        mistakes.append(
            Mistake(
                prompt=prompt.name,
                row=int(prompt.rows[i]),
                input=vocabulary.decode(inputs),
                answer=texts[given.predictions[i]],
                gold=texts[gold] if gold >= 0 else None,
            )
        )
    return tuple(mistakes)


def _identity(prompt: RankedPrompt, normalise: Normalise) -> str:
    return prompt.identity if normalise == "sum" else content_hash([prompt.identity, normalise])


def _lengths(normalise: Normalise, vocabulary: Vocabulary, choices: Sequence[Tokens]) -> NDArray[np.float64]:
    """What the score of each choice is divided by, [choices]."""
    cut = [choice[:MAX_TARGETS] for choice in choices]
    match normalise:
        case "sum":
            return np.ones(len(cut))
        case "mean_tokens":
            return np.array([len(choice) for choice in cut], dtype=np.float64)
        case "mean_chars":  # an empty choice is EOS alone
            return np.array([max(1, len(vocabulary.decode(choice))) for choice in cut], dtype=np.float64)


def _answers(
    prompt: RankedPrompt, scores: Sequence[Scores], lengths: Callable[[Sequence[Tokens]], NDArray[np.float64]]
) -> Answers:
    places = range(len(prompt.rows))
    return Answers(
        items=prompt.rows,
        predictions=np.array(
            [(values / lengths(prompt.item(i)[1])).argmax() for i, values in enumerate(scores)], dtype=np.int64
        ),
        grades=[prompt.grades(i) for i in places],
        gold=np.array([prompt.gold(i) for i in places], dtype=np.int64),
        classes=prompt.classes,
    )


def _remarks(prompt: RankedPrompt) -> dict[str, int]:
    """What is odd about a prompt's items: it makes no error, but a reader of the figures should know."""
    found = {
        "empty choice": 0,
        SINGLE_CHOICE: 0,
        "choices with the same tokens": 0,
        f"choice cut to {MAX_TARGETS} tokens": 0,
        f"input cut to {MAX_INPUTS} tokens": 0,
    }
    empty, single, alike, cut, long = found
    for i in range(len(prompt.rows)):
        inputs, choices = prompt.item(i)
        lengths = [len(choice) for choice in choices]
        found[empty] += min(lengths) == 1  # EOS alone
        found[single] += len(choices) == 1
        found[alike] += len({choice[:MAX_TARGETS].tobytes() for choice in choices}) < len(choices)
        found[cut] += max(lengths) > MAX_TARGETS
        found[long] += len(inputs) > MAX_INPUTS
    return {**prompt.remarks, **{remark: number for remark, number in found.items() if number}}


def _table(entry: SuiteEntry, prompt: RankedPrompt, scores: Sequence[Scores], answers: Answers) -> pa.Table:
    rows = len(scores)
    columns = {
        "dataset": [entry.dataset.key] * rows,
        "split": [entry.split] * rows,
        "task": [prompt.task] * rows,
        "prompt": [prompt.name] * rows,
        "row": answers.items,
        "scores": scores,
        "prediction": answers.predictions,
        "gold": answers.gold,
        "right": answers.scores,
    }
    return pa.table(columns, schema=SCORES)
