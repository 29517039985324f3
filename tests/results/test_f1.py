"""F1 against scikit-learn and scipy; what guesses and constant answers get, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score

from t0train.results.statistics import F1, RankPredictions, f1_of_prompts


def answers(gold: np.ndarray, predictions: np.ndarray, classes: int | None) -> RankPredictions:
    grades = [(np.arange(classes or 4) == label).astype(float) for label in gold]
    return RankPredictions(np.arange(len(gold)), predictions, grades, gold, classes)


def f1(gold: list[int] | np.ndarray, predictions: list[int] | np.ndarray, classes: int) -> F1:
    [found], interval = f1_of_prompts([answers(np.array(gold), np.array(predictions), classes)])
    assert found is not None
    assert interval == found.interval  # the median of one prompt is that prompt
    return found


def test_f1_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    gold, predictions = random.integers(0, 2, 80), random.integers(0, 2, 80)
    assert f1(gold, predictions, 2).value == pytest.approx(f1_score(gold, predictions))
    gold, predictions = random.integers(0, 3, 80), random.integers(0, 3, 80)
    assert f1(gold, predictions, 3).value == pytest.approx(f1_score(gold, predictions, average="macro"))


def test_a_gold_that_is_no_choice_is_a_wrong_answer() -> None:
    """Two of three predictions of class 1 are right, and one record of class 1 was missed: P = 2/3, R = 2/3."""
    assert f1([1, 1, -1, 1, 0], [1, 1, 1, 0, 0], 2).value == pytest.approx(2 / 3)


def test_baselines_of_two_classes_worked_by_hand() -> None:
    """Three of four records are of class 1. Always 1: 3 hits, 1 error, 6 / 7. A guess: 1.5 hits, 0.5 + 1.5 errors."""
    found = f1([1, 1, 1, 0], [0, 0, 0, 0], 2)
    assert found.value == 0
    assert found.majority == pytest.approx(6 / 7)
    assert found.chance == pytest.approx(3 / (3 + 2))
    with_missing = f1([1, 1, -1], [1, 1, 1], 2)  # always 1: 2 hits, 1 error; a guess: 1 hit, 1 + 0.5 errors
    assert with_missing.majority == with_missing.value == pytest.approx(4 / 5)
    assert with_missing.chance == pytest.approx(2 / (2 + 1.5))


def test_baselines_of_three_classes_worked_by_hand() -> None:
    """Rows of classes 0, 0, 1, 2. Always 0: 4 / 6 for class 0, nothing for the others.

    A guess hits class 0 in 2/3 records, misses it in 4/3 and says it wrongly in 2/3; each other class: 1/3, 2/3, 1.
    """
    found = f1([0, 0, 1, 2], [2, 2, 2, 2], 3)
    assert found.majority == pytest.approx((4 / 6) / 3)
    of_first, of_others = (4 / 3) / (4 / 3 + 2), (2 / 3) / (2 / 3 + 5 / 3)
    assert found.chance == pytest.approx((of_first + 2 * of_others) / 3)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
def test_interval_is_the_bootstrap_of_scikit_learns_figure(classes: int) -> None:
    random = np.random.default_rng(1)
    gold = random.integers(0, classes, 150)
    predictions = np.where(random.random(150) < 0.5, gold, random.integers(0, classes, 150))
    average = "binary" if classes == 2 else "macro"
    oracle = scipy.stats.bootstrap(
        (gold, predictions),
        lambda *drawn: f1_score(*drawn, average=average),
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert f1(gold, predictions, classes).interval == pytest.approx(oracle, abs=0.015)


def test_prompts_share_the_draws_and_those_without_classes_have_no_f1() -> None:
    """Two prompts of which always exactly one is right: their F1 varies, the other way round."""
    gold = np.ones(60, dtype=int)
    first = np.arange(60) % 2
    of_prompts, interval = f1_of_prompts(
        [answers(gold, first, 2), answers(gold, first, None), answers(gold, 1 - first, 2)]
    )
    assert of_prompts[1] is None
    assert of_prompts[0] is not None
    assert interval is not None
    assert of_prompts[0].value == pytest.approx(2 / 3)  # P = 1, R = 1/2
    assert interval[1] - interval[0] < 0.2 * (of_prompts[0].interval[1] - of_prompts[0].interval[0])
    assert f1_of_prompts([answers(gold, first, None)]) == ([None], None)


def test_a_class_that_a_replicate_lacks_has_f1_zero_there() -> None:
    """One record of class 1 among three, found: a replicate without it has no hit and no error."""
    found = f1([1, 0, 0], [1, 0, 0], 2)
    assert (found.value, found.interval) == (1, (0, 1))
