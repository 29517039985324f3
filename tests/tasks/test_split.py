"""Splits as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t0train.core.errors import UserError
from t0train.tasks import Split, parse_split


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", Split("train")),
        ("train_r1", Split("train_r1")),
        ("test[:1000]", Split("test", 0, 1000)),
        ("test[1000:]", Split("test", 1000)),
        ("test[5:9]", Split("test", 5, 9)),
        ("test[:]", Split("test")),
    ],
)
def test_splits_and_slices(text: str, split: Split) -> None:
    assert parse_split(text) == split


@pytest.mark.parametrize(
    "text",
    [
        "",
        "test[",
        "test[1000]",
        "test[:10%]",
        "test[-5:]",
        "test[9:9]",
        "test[9:3]",
        f"test[:{'9' * 5000}]",
        "a b",
        "../train",
        "a/b",
    ],
)
def test_malformed_splits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="split"):
        parse_split(text)


numbers = st.integers(0, 30)
splits = st.builds(
    lambda name, start, length: Split(name, start, None if length is None else start + length + 1),
    *(st.sampled_from(["train", "test"]), numbers, st.none() | numbers),
)


@given(split=splits, rows=numbers)
def test_bounds_are_those_of_a_python_slice(split: Split, rows: int) -> None:
    start, stop = split.bounds(rows)
    assert list(range(rows))[start:stop] == list(range(rows))[split.start : split.stop]
    assert parse_split(str(split)) == split


@given(one=splits, other=splits)
def test_overlap_is_a_shared_row(one: Split, other: Split) -> None:
    def rows(split: Split) -> set[tuple[str, int]]:
        return {(split.name, row) for row in range(*split.bounds(100))}

    assert one.overlaps(other) == bool(rows(one) & rows(other))
