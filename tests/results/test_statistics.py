"""Prompt statistics against scikit-learn, scipy and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score

from t0train.results.statistics import RankPredictions, paired_difference, resample, summarise


def classes(predictions: np.ndarray, gold: np.ndarray, number: int, items: np.ndarray | None = None) -> RankPredictions:
    """Answers to a prompt with the same `number` choices in every record."""
    grades = [(np.arange(number) == label).astype(float) for label in gold]
    return RankPredictions(np.arange(len(gold)) if items is None else items, predictions, grades, gold, number)


def test_prompt_figures_equal_scikit_learn_and_scipy() -> None:
    random = np.random.default_rng(1)
    gold = random.choice(4, size=300, p=[0.45, 0.3, 0.15, 0.1])
    predictions = np.where(random.random(300) < 0.6, gold, random.integers(0, 4, 300))
    [prompt], spread = summarise([classes(predictions, gold, 4)])

    assert prompt.records == 300
    assert prompt.accuracy == pytest.approx(accuracy_score(gold, predictions))
    features = np.zeros((300, 1))
    constant = DummyClassifier(strategy="most_frequent").fit(features, gold)
    assert prompt.majority == pytest.approx(constant.score(features, gold))
    assert prompt.chance == pytest.approx(0.25)
    oracle = scipy.stats.bootstrap(
        [gold == predictions], np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert prompt.interval == pytest.approx(oracle, abs=0.01)
    assert spread.median == spread.mean == spread.min == spread.max == prompt.accuracy
    assert spread.interval == spread.mean_interval == prompt.interval


def test_interval_of_one_prompt_is_the_binomial_one() -> None:
    """The bootstrap of a share p of n items is Binomial(n, p) / n."""
    right = (np.arange(200) < 130).astype(float)[:, None]
    replicates = resample(right, np.ones_like(right), resamples=20_000)[:, 0]
    law = scipy.stats.binom(200, 0.65)
    assert replicates.mean() == pytest.approx(0.65, abs=0.002)
    assert replicates.std() == pytest.approx(law.std() / 200, rel=0.03)
    assert np.percentile(replicates, [2.5, 97.5]) * 200 == pytest.approx(law.ppf([0.025, 0.975]), abs=1.001)


def test_spread_over_prompts_worked_by_hand() -> None:
    gold = np.zeros(10, dtype=int)
    prompts = [classes((np.arange(10) >= hits).astype(int), gold, 2) for hits in (2, 4, 6, 10)]
    _, spread = summarise(prompts)
    assert (spread.min, spread.max) == (0.2, 1.0)
    assert spread.mean == pytest.approx(0.55)
    assert spread.median == pytest.approx(0.5)
    assert spread.iqr == pytest.approx((0.35, 0.7))  # 0.2 + 0.75 * 0.2 and 0.6 + 0.25 * 0.4
    assert spread.majority == 1.0
    assert spread.chance == 0.5


def test_rows_are_drawn_jointly_for_all_prompts() -> None:
    """Two prompts of which always exactly one is right: their mean is 1/2 on every resample, each alone varies."""
    gold = np.zeros(50, dtype=int)
    first = np.arange(50) % 2
    prompts, spread = summarise([classes(first, gold, 2), classes(1 - first, gold, 2)])
    assert spread.mean_interval == pytest.approx((0.5, 0.5))
    assert spread.interval == pytest.approx((0.5, 0.5))
    assert prompts[0].interval[0] < 0.4 < 0.6 < prompts[0].interval[1]


def test_conditional_prompt_counts_only_its_own_records() -> None:
    gold = np.zeros(8, dtype=int)
    everywhere = classes(np.ones(8, dtype=int), gold, 2)
    half = classes(np.zeros(4, dtype=int), gold[:4], 2, items=np.array([0, 2, 4, 6]))
    prompts, spread = summarise([everywhere, half])
    assert [prompt.records for prompt in prompts] == [8, 4]
    assert [prompt.accuracy for prompt in prompts] == [0.0, 1.0]
    assert prompts[1].interval == (1.0, 1.0)
    assert (spread.records, spread.mean) == (8, 0.5)


def test_repeated_choices_are_all_right_and_a_missing_gold_is_wrong() -> None:
    grades = [np.array(record, dtype=float) for record in ([1, 0, 1], [0, 0], [0, 1, 0], [0, 0, 1, 0])]
    [prompt], _ = summarise([RankPredictions(np.arange(4), np.array([2, 0, 1, 0]), grades, np.array([0, -1, 1, 2]))])
    assert prompt.accuracy == 0.5
    assert prompt.gold_not_in_choices == 1
    assert prompt.chance == pytest.approx((2 / 3 + 0 + 1 / 3 + 1 / 4) / 4)
    assert prompt.majority == 0.5  # the third choice is right in records 0 and 3


def test_replicates_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    right = (np.arange(40) % 3 == 0).astype(float)[:, None]
    whole = resample(right, np.ones_like(right), seed=7)
    monkeypatch.setattr("t0train.results.statistics._CELLS", 40 * 17)
    assert (resample(right, np.ones_like(right), seed=7) == whole).all()
    assert (resample(right, np.ones_like(right), seed=8) != whole).any()


def scored(values: np.ndarray, items: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(values)) if items is None else items, values.astype(float)


def test_paired_difference_is_that_of_the_paired_scores() -> None:
    """One prompt each: the bootstrap of the record-wise differences' mean, which scipy computes."""
    random = np.random.default_rng(0)
    first = (random.random(400) < 0.7).astype(float)
    second = np.where(random.random(400) < 0.8, first, 1 - first)
    found = paired_difference([scored(first)], [scored(second)])
    assert found.items == 400
    assert found.mean == found.median == pytest.approx(first.mean() - second.mean())
    oracle = scipy.stats.bootstrap(
        [first - second], np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.mean_interval == pytest.approx(oracle, abs=0.006)
    apart = summarise([classes(first.astype(int), np.ones(400, dtype=int), 2)])[0][0].interval
    assert oracle.high - oracle.low < apart[1] - apart[0]  # what both share cancels


def test_a_model_does_not_differ_from_itself_and_signs_are_first_minus_second() -> None:
    prompts = [scored(np.arange(50) % k == 0) for k in (2, 3, 5)]
    same = paired_difference(prompts, prompts)
    assert (same.mean, same.median) == (0, 0)
    assert same.mean_interval == same.median_interval == (0, 0)
    better = [scored(np.ones(50)) for _ in prompts]
    there, back = paired_difference(better, prompts), paired_difference(prompts, better)
    assert there.mean == pytest.approx(1 - np.mean([values.mean() for _, values in prompts])) == -back.mean
    assert there.median == pytest.approx(1 - np.median([values.mean() for _, values in prompts])) == -back.median
    assert there.mean_interval == pytest.approx((-back.mean_interval[1], -back.mean_interval[0]))
    assert 0 < there.mean_interval[0] < there.mean < there.mean_interval[1]


def test_rows_that_only_some_prompts_cover_count_there() -> None:
    first = [scored(np.ones(10)), scored(np.ones(5), np.arange(0, 10, 2))]
    second = [scored(np.zeros(10)), scored(np.ones(5), np.arange(1, 10, 2))]
    found = paired_difference(first, second)
    assert (found.items, found.mean, found.median) == (10, 0.5, 0.5)


def test_grades_between_0_and_1_are_averaged() -> None:
    grades = [np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.25])]
    [prompt], _ = summarise([RankPredictions(np.arange(2), np.array([1, 1]), grades, np.array([0, 1]))])
    assert prompt.accuracy == pytest.approx((0.5 + 0.25) / 2)
    assert prompt.chance == pytest.approx((0.5 + 0.125) / 2)
    assert prompt.gold_not_in_choices == 0
