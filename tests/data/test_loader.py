from __future__ import annotations

from dataclasses import fields
from itertools import islice

import numpy as np
import pytest

from t0train.data import LoaderState, Order, PackedLoader, RowBatch, open_folder, open_loader, prepare
from tests.data.conftest import Configure


@pytest.fixture
def stream(configure: Configure) -> PackedLoader:
    run = configure()
    prepare(run, workers=1)
    return open_loader(run)


def assert_same(one: RowBatch, other: RowBatch) -> None:
    for field in fields(RowBatch):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def examples_of(batch: RowBatch) -> list[tuple[int, int]]:
    return list(zip(batch.example_tasks.tolist(), batch.example_ids.tolist(), strict=True))


@pytest.mark.parametrize("packing", ["next_fit", "best_fit", "none"])
def test_a_window_holds_exactly_its_positions_of_the_order(configure: Configure, packing: str) -> None:
    run = configure(packing=packing)
    prepare(run, workers=1)
    stream = open_loader(run)
    order = Order(stream.mixture.probabilities, stream.task_sizes, run.seed, stream.mixture.hash)
    for window in (0, 3):
        tasks, rows = order.at(np.arange(window * 1024, (window + 1) * 1024))
        drawn = list(zip(tasks.tolist(), rows.tolist(), strict=True))
        batch, after = stream.take(LoaderState(window, 0), examples=1024)
        assert stream.skip(LoaderState(window, 0), rows=len(batch)) == after
        assert stream.take(after, rows=1)[0].row_ids[0] == (window + 1) << 20
        if packing == "best_fit":
            assert sorted(examples_of(batch)) == sorted(drawn)
        else:
            assert examples_of(batch) == drawn
        assert batch.row_ids.tolist() == [(window << 20) + i for i in range(len(batch))]


def test_rows_hold_the_tokens_of_their_examples(configure: Configure) -> None:
    run = configure(max_inputs=40, max_targets=20)
    prepared = prepare(run, workers=1)
    stream = open_loader(run)
    tokens = [open_folder(task.folder) for task in prepared]
    batch, _ = stream.take(LoaderState(), rows=300)
    cut = 0
    for row in range(300):
        members = np.flatnonzero(batch.example_rows == row)
        for segment, example in enumerate(members, 1):
            task, index = tokens[batch.example_tasks[example]], int(batch.example_ids[example])
            assert (
                batch.input_ids[row][batch.input_segments[row] == segment].tolist() == task.inputs(index)[:40].tolist()
            )
            labels = batch.labels[row][batch.target_segments[row] == segment].tolist()
            expected = task.targets(index).tolist()
            if len(expected) > 20:
                cut += 1
                expected = [*expected[:19], 1]
            assert labels == expected
    assert cut > 5
    np.testing.assert_array_equal(batch.target_segments, batch.target_sources)


def test_taking_is_the_same_in_any_portions(stream: PackedLoader) -> None:
    whole, end = stream.take(LoaderState(), rows=230)
    state = LoaderState()
    for start, count in ((0, 1), (1, 99), (100, 130)):
        part, state = stream.take(state, rows=count)
        assert_same(part, whole.slice(start, start + count))
    assert state == end
    later = stream.skip(LoaderState(), rows=100)
    assert_same(stream.take(later, rows=130)[0], whole.slice(100, 230))
    assert whole.row_ids[-1] >> 20 > 0  # it went over a window's end


def test_a_batch_of_examples_ends_with_the_row_that_reaches_the_number(stream: PackedLoader) -> None:
    state = LoaderState()
    for _ in range(60):
        batch, after = stream.take(state, examples=50)
        last = int(np.sum(batch.example_rows == len(batch) - 1))
        assert 50 <= len(batch.example_ids) < 50 + last
        assert_same(batch, stream.take(state, rows=len(batch))[0])
        state = after
    assert state.window >= 2


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_built_ahead_are_those_built_in_the_loop(stream: PackedLoader, workers: int) -> None:
    start = LoaderState(1, 5)
    batches = stream.batches(start, rows=37, workers=workers)
    state = start
    for batch, plan in islice(batches, 12):
        expected, state = stream.take(state, rows=37)
        assert_same(batch, expected)
        assert plan.after == state
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("take", [{"rows": 6}, {"examples": 3}])
def test_the_parts_of_all_processes_are_the_rows(stream: PackedLoader, take: dict[str, int], workers: int) -> None:
    for size in (2, 3, 4):
        shares = [stream.batches(LoaderState(), **take, workers=workers, part=(rank, size)) for rank in range(size)]
        state = LoaderState()
        for _ in range(5):
            whole, after = stream.take(state, **take)
            found = [next(share) for share in shares]
            for name in ("row_ids", "example_rows", "example_tasks", "example_ids", "fill"):
                for _, plan in found:
                    np.testing.assert_array_equal(getattr(plan, name), getattr(whole, name))
            assert {plan.after for _, plan in found} == {after}
            assert {plan.target_tokens for _, plan in found} == {int((whole.labels > 0).sum())}
            assert {plan.target_slots for _, plan in found} == {whole.labels.size}
            real = [batch for batch, _ in found if batch.labels.any()]
            assert [row for batch in real for row in batch.row_ids] == whole.row_ids.tolist()
            np.testing.assert_array_equal(np.concatenate([batch.labels for batch in real]), whole.labels)
            np.testing.assert_array_equal(np.concatenate([batch.input_ids for batch in real]), whole.input_ids)
            assert all(len(batch) == 1 for batch, _ in found if not batch.labels.any())
            assert len(real) == min(size, len(whole))
            state = after
        for share in shares:
            share.close()


def test_another_process_would_see_the_same_rows(configure: Configure, stream: PackedLoader) -> None:
    again = open_loader(configure())
    assert_same(again.take(LoaderState(2, 3), rows=20)[0], stream.take(LoaderState(2, 3), rows=20)[0])
    prepare(configure(seed=5), workers=1)
    other = open_loader(configure(seed=5))
    assert examples_of(other.take(LoaderState(), rows=20)[0]) != examples_of(stream.take(LoaderState(), rows=20)[0])


def test_best_fit_rows_of_a_window_are_shuffled(stream: PackedLoader) -> None:
    lengths = []
    for window in range(6):
        batch, _ = stream.take(LoaderState(window, 0), examples=1024)
        longest = [int(np.bincount(segments)[1:].max()) for segments in batch.input_segments]
        lengths.append(np.corrcoef(np.arange(len(longest)), longest)[0, 1])
    assert abs(np.mean(lengths)) < 0.15  # best-fit decreasing alone would give nearly -1


def test_statistics_are_those_of_the_rows(stream: PackedLoader) -> None:
    statistics = stream.statistics(windows=2)
    first, after = stream.take(LoaderState(), examples=1024)
    second, _ = stream.take(after, examples=1024)
    assert after == LoaderState(0, len(first))
    assert statistics.rows == len(first) + len(second)
    filled = np.concatenate([first.input_segments, second.input_segments]) > 0
    assert statistics.fill_inputs == pytest.approx(filled.mean())
    targets = np.concatenate([first.target_segments, second.target_segments]) > 0
    assert statistics.fill_targets == pytest.approx(targets.mean())
    assert len(statistics.input_lengths) == 2048
    assert statistics.summary()["examples_per_row"] == pytest.approx(2048 / statistics.rows)
