"""F1 of classes, beside what a constant and a random answer get, with bootstrap intervals over rows.

F1 of the second class if there are two, the mean of every class's F1 if there are more: so defined for MRPC and QQP
(GLUE) and for CB (SuperGLUE). A row whose gold is no choice counts as a wrong answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t0train.core.bootstrap import Interval, Scored, as_table, interval, resample
from t0train.evals.statistics import Answers


@dataclass(frozen=True)
class F1:
    """F1 under one prompt.

    Attributes:
        value: of the model's answers.
        interval: 95 % bootstrap over rows.
        chance: of every class given to an equal part of the rows of each class, as a uniform guess does on average.
        majority: of the best constant answer.
    """

    value: float
    interval: Interval
    chance: float
    majority: float


def f1_of_prompts(prompts: Sequence[Answers], seed: int = 0) -> tuple[list[F1 | None], Interval | None]:
    """F1 under each prompt (None where the classes are not the same in every row), and the interval of their median.

    Args:
        prompts: what a model answered under each.
        seed: of the bootstrap, which draws the same rows for all prompts, as that of the accuracy does.
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


def _classes(answers: Answers) -> range:
    assert answers.classes is not None
    return range(answers.classes)


def _labels(answers: Answers) -> list[int]:
    """The classes whose F1 counts."""
    return [1] if answers.classes == 2 else list(_classes(answers))


def _f1(
    answers: Answers,
    gold: NDArray[np.int64],
    predictions: NDArray[np.int64],
) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(gold, predictions, labels=_labels(answers), average="macro", zero_division=0))


def _chance(answers: Answers) -> float:
    """Every row answered once with every class."""
    number = len(_classes(answers))
    return _f1(answers, np.repeat(answers.gold, number), np.tile(np.arange(number), len(answers.gold)))


def _replicates(prompts: Sequence[Answers], seed: int) -> NDArray[np.float64]:
    """F1 of bootstrap replicates, [resamples, prompts]; NaN where a replicate holds no row of a prompt."""
    columns: list[Scored] = []
    for answers in prompts:
        for label in _labels(answers):
            said, is_so = answers.predictions == label, answers.gold == label
            columns += [(answers.items, (said & is_so).astype(float)), (answers.items, (said ^ is_so).astype(float))]
    _, scores, covered = as_table(columns)
    shares = resample(scores, covered, seed)  # of hits and errors among a replicate's rows, by turns
    hits, errors = 2 * shares[:, ::2], shares[:, 1::2]
    of_labels = hits / np.where(hits + errors == 0, 1, hits + errors)  # 0 where a class is neither said nor so
    ends = np.cumsum([len(_labels(answers)) for answers in prompts])[:-1]
    return np.stack([part.mean(axis=1) for part in np.split(of_labels, ends, axis=1)], axis=1)
