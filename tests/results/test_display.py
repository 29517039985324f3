"""Figures as text: what tables on a terminal and in reports have in common."""

from __future__ import annotations

import pytest

from t0train.results import Selection
from t0train.results.display import difference_cells, overlap_counts, overlap_sources, selection_table
from t0train.results.results_json import Candidate, DatasetDifference, Overlap


def overlap(number: int, short: int, touched: int = 0, sources: dict[str, int] | None = None) -> Overlap:
    return Overlap(
        dataset="films",
        split="test",
        records=number,
        short=short,
        touched=touched,
        overlapping=0,
        sources=sources or {},
        examples=(),
    )


def test_selection_is_a_row_for_each_checkpoint() -> None:
    selection = Selection(
        suite="demo",
        step=1200,
        candidates=(
            Candidate(step=600, score=0.25, medians={"a": 0.2, "b": 0.3}),
            Candidate(step=1200, score=0.5, medians={"a": 0.5}),
        ),
        left_out={},
        rule="the best",
    )
    header, rows = selection_table(selection)
    assert header == ["step", "mean", "a", "b"]
    assert rows == [["600", "25.0", "20.0", "30.0"], ["1,200", "50.0", "50.0", "-"]]


def test_difference_is_in_points_with_intervals() -> None:
    found = DatasetDifference(
        name="gap",
        of="a",
        minus="b",
        items=1500,
        median=0.1,
        median_interval=(-0.05, 0.25),
        mean=-0.02,
        mean_interval=(-0.04, 0.0),
    )
    assert difference_cells(found) == ("1,500", "10.0 [-5.0, 25.0]", "-2.0 [-4.0, 0.0]")


@pytest.mark.parametrize(
    ("found", "counts", "sources"),
    [
        (overlap(2000, 3, 2, {"books": 2, "news": 1}), ("2,000", "3", "2", "0"), "books (2), news (1)"),
        (overlap(7, 3), ("7", "3", "0", "0"), "none"),
        (overlap(7, 7), ("7", "7", "-", "-"), "-"),  # too short to compare: nothing is known
    ],
)
def test_overlap_says_nothing_of_what_was_not_compared(found: Overlap, counts: tuple[str, ...], sources: str) -> None:
    assert overlap_counts(found) == counts
    assert overlap_sources(found) == sources


def test_sources_of_overlap_may_be_cut() -> None:
    assert overlap_sources(overlap(7, 0, 3, {"books": 1200, "news": 1}), most=1) == "books (1,200)"
