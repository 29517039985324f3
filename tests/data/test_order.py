from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from t0train.core.hashing import generator
from t0train.data import Order
from t0train.data import order as order_module
from t0train.data.order import BLOCK

RATES = np.array([500.0, 300.0, 120.0, 50.0, 20.0, 7.0, 2.0, 1.0])
SIZES = np.array([40_000, 1_000, 5, 77, 3, 2, 1, 10])


def make(seed: int = 0, key: str = "mixture") -> Order:
    return Order(RATES, SIZES, seed, key)


def test_draws_match_the_rates() -> None:
    tasks, rows = make().at(np.arange(1_000_000))
    observed = np.bincount(tasks, minlength=len(RATES))
    assert stats.chisquare(observed, 1_000_000 * RATES / RATES.sum()).pvalue > 1e-3
    assert np.all(rows < SIZES[tasks])
    assert np.all(rows >= 0)


def test_draws_are_independent_of_their_neighbours_and_of_the_block() -> None:
    tasks, _ = make(seed=3).at(np.arange(40 * BLOCK))
    pairs = np.zeros((len(RATES), len(RATES)))
    np.add.at(pairs, (tasks[:-1:2], tasks[1::2]), 1)
    assert stats.chi2_contingency(pairs[:4, :4]).pvalue > 1e-3
    # Counts of a block must scatter as binomial ones do, no less (fixed quotas) and no more.
    p = RATES[0] / RATES.sum()
    counts = (tasks.reshape(40, BLOCK) == 0).sum(axis=1)
    scatter = np.sum((counts - BLOCK * p) ** 2) / (BLOCK * p * (1 - p))
    assert 1e-3 < stats.chi2.cdf(scatter, 40) < 1 - 1e-3


def test_every_epoch_of_a_task_visits_every_row_once() -> None:
    tasks, rows = make().at(np.arange(3 * BLOCK))
    for task, size in enumerate(SIZES.tolist()):
        drawn = rows[tasks == task]
        epochs = drawn[: len(drawn) // size * size].reshape(-1, size)
        assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (len(epochs), 1)))
    hundreds = rows[tasks == 1][:10_000].reshape(10, 1_000)
    assert len({tuple(epoch) for epoch in hundreds.tolist()}) == 10


def test_rows_of_a_small_task_come_in_every_order() -> None:
    tasks, rows = make().at(np.arange(8 * BLOCK))
    epochs = rows[tasks == 4][: 3 * 3_000].reshape(-1, 3)
    orders, counts = np.unique(epochs, axis=0, return_counts=True)
    assert len(orders) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_any_position_can_be_sought_directly() -> None:
    straight_tasks, straight_rows = make().at(np.arange(5 * BLOCK))
    wanted = np.random.default_rng(0).integers(0, 5 * BLOCK, 2_000)
    for _ in range(2):  # in any order, and again when the blocks are remembered
        tasks, rows = make().at(wanted)
        np.testing.assert_array_equal(tasks, straight_tasks[wanted])
        np.testing.assert_array_equal(rows, straight_rows[wanted])
        wanted = wanted[::-1]


@pytest.mark.parametrize("first", [0, 500, 1_022, 2_047])
def test_counts_before_a_block_are_those_of_the_blocks_before_it(first: int) -> None:
    order = make()
    before, counts = order.counts(first)
    after, _ = order.counts(first + 1)
    np.testing.assert_array_equal(before + counts, after)
    assert before.sum() == first * BLOCK
    assert counts.sum() == BLOCK
    tasks, _ = order.at(np.arange(first * BLOCK, (first + 1) * BLOCK))
    np.testing.assert_array_equal(np.bincount(tasks, minlength=len(RATES)), counts)


def test_a_far_position_needs_as_many_draws_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    real = generator

    def counted(*key: object) -> Any:
        calls.append(key)
        return real(*key)

    monkeypatch.setattr(order_module, "generator", counted)
    work = []
    for position in (0, 10_000 * 1_024 * 3):  # step 10,000 of 1,024 rows with three examples each
        calls.clear()
        make().at(np.array([position]))
        work.append(len(calls))
    assert work[0] == work[1]


def test_the_order_is_a_function_of_seed_and_mixture_alone() -> None:
    positions = np.arange(1_000)
    tasks, rows = make().at(positions)
    for other in (make(seed=1), make(key="other")):
        other_tasks, other_rows = other.at(positions)
        assert np.mean(other_tasks == tasks) < 0.9
        assert not np.array_equal(other_rows, rows)
    same_tasks, same_rows = Order(RATES / 7, SIZES.tolist(), 0, "mixture").at(positions)
    np.testing.assert_array_equal(same_tasks, tasks)
    np.testing.assert_array_equal(same_rows, rows)


def test_a_task_without_rows_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="without rows"):
        Order([0.5, 0.5], [3, 0], 0, "")
    tasks, _ = Order([1.0, 0.0], [3, 0], 0, "").at(np.arange(100))
    assert not tasks.any()
