"""What texts of the suites stand in training rows, too, as `t0train mixture check RUN --ngrams` has found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from t0train.report.parts import Part, Sentences, Table
from t0train.report.runs import Run
from t0train.report.scores import NOTHING

_EXPLAINED = (
    "A row is too short if no text of it has so many words: nothing is known of it then. Quotations and set phrases "
    "are shared, too: this is a reason to look at the rows, not a proof."
)


def shared_texts(runs: Sequence[Run]) -> list[Part]:
    """For each run and suite a table of datasets and one of rows, and which suites were not compared."""
    parts = [part for run in runs for suite, found in run.overlaps.items() for part in _compared(run, suite, found)]
    explained = [Sentences([_EXPLAINED])] if any(isinstance(part, Table) for part in parts) else []
    unchecked = [_unchecked(run) for run in runs if run.results.keys() - run.overlaps.keys()]
    return [*parts, *explained, *([Sentences(unchecked)] if unchecked else [])]


def _unchecked(run: Run) -> str:
    suites = [suite for suite in run.results if suite not in run.overlaps]
    return (
        f"{run.name}: n-gram overlap with {', '.join(suites)}: not checked; run "
        f"`t0train mixture check RUN --suite {suites[0]} --ngrams`{' and so on' if len(suites) > 1 else ''}."
    )


def _sources(found: dict[str, Any]) -> str:
    if found["short"] == found["rows"]:
        return NOTHING
    return ", ".join(f"{key} ({rows:,})" for key, rows in found["sources"].items()) or "none"


def _compared(run: Run, suite: str, found: dict[str, Any]) -> Iterator[Part]:
    size, part = f"{found['ngram']}-gram", f"{found['threshold']:.0%}"
    rows = [
        (
            *(one["dataset"], one["split"], _sources(one)),
            *(f"{one[key]:,}" for key in ("rows", "short")),
            *(NOTHING if one["short"] == one["rows"] else f"{one[key]:,}" for key in ("touched", "overlapping")),
        )
        for one in found["overlaps"]
    ]
    if rows:
        header = ("dataset", "split", "in training rows of", "rows", "too short")
        counts = (f"share a {size}", f"share {part} of theirs")
        yield Table((*header, *counts), rows, title=f"{run.name}, {suite}: rows by their {size}s", names=3)
    examples = [
        (
            *(one["dataset"], f"{text['row']}", text["words"]),
            f"{text['trained_dataset']} {text['trained_row']}",
            f"{text['share']:.0%}",
        )
        for one in found["overlaps"]
        for text in one["examples"]
    ]
    if examples:
        header = ("dataset", "row", f"one {size}", "also in training row", "share of its own")
        yield Table(header, examples, title=f"{run.name}, {suite}: rows that share most", names=4, folded=True)
    if reasons := found["not_compared"]:
        yield Table(
            ("dataset", "reason"),
            list(reasons.items()),
            title=f"{run.name}, {suite}: {len(reasons)} datasets that were not compared",
            names=2,
            folded=True,
        )
    trained = [event["mixture"] for event in run.of_kind("start") if event.get("mixture")]
    if trained and trained[-1] != found["mixture"]:
        yield Sentences(
            [
                f"{run.name}, {suite}: compared with the mixture {found['mixture']}, but the run is trained on "
                f"{trained[-1]}: check again."
            ]
        )
