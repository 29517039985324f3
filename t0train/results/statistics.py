"""How figures are computed: scores per prompt, spread over prompts, bootstrap intervals, baselines, F1, differences.

The two kinds of spread stay apart. Intervals are 95 % percentile bootstraps over *items* (records of the dataset);
median, interquartile range, minimum and maximum are taken over *prompts*, as in the paper (Sanh et al. 2021, section
5). Every bootstrap replicate draws items with replacement, the same ones for all prompts (and for both models of a
difference), so what prompts and models share cancels as it should. Intervals are the 2.5 and 97.5 percentiles of the
replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t0train.core.hashing import generator
from t0train.results.results_json import Accuracy, AccuracySpread, Difference, MeanScore, OverPrompts, Spread

Interval = tuple[float, float]
ItemScores = tuple[NDArray[np.int64], NDArray[np.float64]]
"""What happened under one prompt: distinct items [n], e.g. record numbers, and the score of each [n]."""

RESAMPLES = 2000
_CELLS = 1 << 24  # item counts of one block of resamples: bounds memory, changes no result


@dataclass(frozen=True)
class RankPredictions:
    """What a model answered under one prompt.

    Attributes:
        items: [records] the record behind each answer; a conditional template leaves some out.
        predictions: [records] index of the predicted choice.
        grades: per record, how right each of its choices is, 0 to 1: all 0 if the gold target is no choice, several 1
            if it is repeated; between 0 and 1 in some BIG-bench tasks only.
        gold: [records] index of the gold choice, -1 if it is none.
        classes: how many choices every record has, if they are the same for every record; else None.
    """

    items: NDArray[np.int64]
    predictions: NDArray[np.int64]
    grades: Sequence[NDArray[np.float64]]
    gold: NDArray[np.int64]
    classes: int | None = None

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """[records] the grade of each prediction: 1 if it is right, 0 if not."""
        return np.array([grades[k] for grades, k in zip(self.grades, self.predictions, strict=True)], dtype=np.float64)


def spread_over_prompts(prompts: Sequence[ItemScores], seed: int = 0) -> tuple[list[MeanScore], Spread]:
    """Statistics of each prompt and of all of them, from one joint resampling of the dataset's records."""
    items, scores, covered = as_table(prompts)
    replicates = resample(scores, covered, seed)
    means = scores.sum(axis=0) / covered.sum(axis=0)
    lower, median, upper = np.percentile(means, [25, 50, 75])
    of_prompts = [
        MeanScore(records=len(some), score=float(means[column]), interval=interval(replicates[:, column]))
        for column, (some, _) in enumerate(prompts)
    ]
    return of_prompts, Spread(
        records=len(items),
        median=float(median),
        interval=interval(np.nanmedian(replicates, axis=1)),
        iqr=(float(lower), float(upper)),
        mean=float(means.mean()),
        mean_interval=interval(np.nanmean(replicates, axis=1)),
        min=float(means.min()),
        max=float(means.max()),
    )


def summarise(prompts: Sequence[RankPredictions], seed: int = 0) -> tuple[list[Accuracy], AccuracySpread]:
    """As `spread_over_prompts`, for ranked answers: with every accuracy come chance and the majority class."""
    scores, spread = spread_over_prompts([(answers.items, answers.scores) for answers in prompts], seed)
    statistics = [
        Accuracy(
            records=one.records,
            accuracy=one.score,
            interval=one.interval,
            chance=chance(answers),
            majority=majority(answers),
            gold_not_in_choices=sum(not grades.any() for grades in answers.grades),
        )
        for answers, one in zip(prompts, scores, strict=True)
    ]
    return statistics, AccuracySpread(
        **dict(spread),
        chance=float(np.mean([prompt.chance for prompt in statistics])),
        majority=float(np.mean([prompt.majority for prompt in statistics])),
    )


def chance(answers: RankPredictions) -> float:
    """Expected accuracy of a uniform guess among each record's choices."""
    return float(np.mean([grades.mean() for grades in answers.grades]))


def majority(answers: RankPredictions) -> float:
    """Best accuracy of an answer that ignores the input: always the same position in the list of choices.

    With the same choices in every record that is the share of the majority class.
    """
    longest = max(len(grades) for grades in answers.grades)
    hits = np.zeros(longest)
    for grades in answers.grades:
        hits[: len(grades)] += grades
    return float(hits.max() / len(answers.grades))


def paired_difference(first: Sequence[ItemScores], second: Sequence[ItemScores], seed: int = 0) -> Difference:
    """Compare two models (or two datasets whose items correspond) by a paired bootstrap.

    Args:
        first: the scores under each prompt.
        second: likewise; equal item numbers mean the same item.
        seed: of the draws.
    """
    items, scores, covered = as_table([*first, *second])
    replicates = resample(scores, covered, seed)
    scores_of_prompts = scores.sum(axis=0) / covered.sum(axis=0)
    prompts = len(first)

    def difference(over_prompts: Callable[..., Any], of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(over_prompts(of[..., :prompts], axis=-1) - over_prompts(of[..., prompts:], axis=-1))

    return Difference(
        items=len(items),
        mean=float(difference(np.mean, scores_of_prompts)),
        mean_interval=interval(difference(np.nanmean, replicates)),
        median=float(difference(np.median, scores_of_prompts)),
        median_interval=interval(difference(np.nanmedian, replicates)),
    )


def as_table(prompts: Sequence[ItemScores]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """All items [items], their scores [items, prompts], and 1 where the prompt applies to the item [items, prompts]."""
    items = np.unique(np.concatenate([some for some, _ in prompts]))
    scores = np.zeros((len(items), len(prompts)))
    covered = np.zeros_like(scores)
    for column, (some, values) in enumerate(prompts):
        places = np.searchsorted(items, some)
        covered[places, column] = 1
        scores[places, column] = values
    return items, scores, covered


def resample(
    scores: NDArray[np.float64], covered: NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Mean scores of bootstrap replicates, [resamples, prompts].

    Args:
        scores: [items, prompts] score of the prompt's answer, 0 where the prompt does not apply.
        covered: [items, prompts] 1 where the prompt applies to the item.
        seed: of the draws.
        resamples: number of replicates.

    Returns:
        NaN where a replicate holds no item that the prompt applies to.
    """
    random = generator(seed, "bootstrap")
    number = len(scores)
    block = max(1, _CELLS // number)
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.integers(0, number, (size, number)) + np.arange(size)[:, None] * number
        counts = np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means.append((counts @ scores) / (counts @ covered))
    return np.concatenate(means)


def interval(replicates: NDArray[np.float64]) -> Interval:
    """The middle 95 % of some replicates."""
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)


def over_prompts(metrics: Sequence[dict[str, float]]) -> dict[str, OverPrompts]:
    """Median and mean of every metric over the prompts that have it."""
    values: dict[str, list[float]] = {}
    for of_prompt in metrics:
        for name, value in of_prompt.items():
            values.setdefault(name, []).append(value)
    return {
        name: OverPrompts(median=float(np.median(some)), mean=float(np.mean(some))) for name, some in values.items()
    }


def mean_baselines(baselines: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """By metric and baseline, the mean over the prompts that have the metric."""
    metrics = dict.fromkeys(metric for of_prompt in baselines for metric in of_prompt)
    return {
        metric: {
            name: value.mean
            for name, value in over_prompts([one[metric] for one in baselines if metric in one]).items()
        }
        for metric in metrics
    }


@dataclass(frozen=True)
class F1:
    """F1 under one prompt.

    Attributes:
        value: of the model's answers.
        interval: 95 % bootstrap over records.
        chance: of every class given to an equal part of each class's records, as a uniform guess does on average.
        majority: of the best constant answer.
    """

    value: float
    interval: Interval
    chance: float
    majority: float


def f1_of_prompts(prompts: Sequence[RankPredictions], seed: int = 0) -> tuple[list[F1 | None], Interval | None]:
    """F1 under each prompt (None where classes differ between records), and the interval of their median.

    Args:
        prompts: what a model answered under each.
        seed: of the bootstrap, which draws the same records for all prompts, as that of the accuracy does.
    """
    fitting = [answers for answers in prompts if answers.classes is not None]
    if not fitting:
        return [None for _ in prompts], None
    replicates = _replicates(fitting, seed)
    found = iter(
        F1(
            value=_f1(answers, answers.gold, answers.predictions),
            interval=interval(replicates[:, column]),
            chance=_chance(answers),
            majority=max(_f1(answers, answers.gold, np.full_like(answers.gold, label)) for label in _classes(answers)),
        )
        for column, answers in enumerate(fitting)
    )
    of_prompts = [None if answers.classes is None else next(found) for answers in prompts]
    return of_prompts, interval(np.nanmedian(replicates, axis=1))


def _classes(answers: RankPredictions) -> range:
    assert answers.classes is not None
    return range(answers.classes)


def _labels(answers: RankPredictions) -> list[int]:
    """The classes whose F1 counts."""
    return [1] if answers.classes == 2 else list(_classes(answers))


def _f1(answers: RankPredictions, gold: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Mean over the classes that count of 2 hits / (times it is right + times it is predicted); 0 where both are 0."""
    scores = []
    for label in _labels(answers):
        actual, predicted = gold == label, predictions == label
        number = int(actual.sum() + predicted.sum())
        scores.append(2 * int((actual & predicted).sum()) / number if number else 0.0)
    return float(np.mean(scores))


def _chance(answers: RankPredictions) -> float:
    """Every record answered once with every class."""
    number = len(_classes(answers))
    return _f1(answers, np.repeat(answers.gold, number), np.tile(np.arange(number), len(answers.gold)))


def _replicates(prompts: Sequence[RankPredictions], seed: int) -> NDArray[np.float64]:
    """F1 of bootstrap replicates, [resamples, prompts]; NaN where a replicate holds no record of a prompt."""
    columns: list[ItemScores] = []
    for answers in prompts:
        for label in _labels(answers):
            predicted, actual = answers.predictions == label, answers.gold == label
            columns += [(answers.items, some.astype(float)) for some in (predicted & actual, predicted ^ actual)]
    _, scores, covered = as_table(columns)
    shares = resample(scores, covered, seed)  # of hits and errors among a replicate's records, by turns
    hits, errors = 2 * shares[:, ::2], shares[:, 1::2]
    of_labels = hits / np.where(hits + errors == 0, 1, hits + errors)  # 0 where a class is neither predicted nor right
    ends = np.cumsum([len(_labels(answers)) for answers in prompts])[:-1]
    return np.stack([part.mean(axis=1) for part in np.split(of_labels, ends, axis=1)], axis=1)
