"""What to know before believing a figure: caveats, odd prompts, texts shared with training, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from t0train.report.elements import Part, Sentences, Table
from t0train.report.run_data import RunData, suites
from t0train.results.display import NOTHING, PromptRemark, prompt_remarks
from t0train.results.results_json import Overlap, OverlapReport

_EXPLAINED = (
    "A row is too short if no text of it has so many words: nothing is known of it then. Quotations and set phrases "
    "are shared, too: this is a reason to look at the rows, not a proof."
)


def caveats(runs: Sequence[RunData]) -> list[Part]:
    """Each caveat once, with the datasets that it belongs to."""
    found: dict[str, dict[str, None]] = {}
    for suite in suites(runs):
        scored = [run.results[suite] for run in runs if suite in run.results]
        for task in (task for results in scored for task in results.tasks):
            if task.caveat:
                found.setdefault(task.caveat, {})[task.dataset] = None
            if task.normalise != "sum":
                text = f"choices were compared by {task.normalise} (normalise), not by their sums of log-probabilities."
                found.setdefault(text, {})[task.dataset] = None
        for written in (written for results in scored for written in results.generated):
            if written.caveat:
                found.setdefault(written.caveat, {})[written.dataset] = None
    return [Sentences([f"{', '.join(keys)}: {caveat}" for caveat, keys in found.items()])] if found else []


def remarks_on_prompts(runs: Sequence[RunData]) -> list[Part]:
    """A table for each suite; a line holds for all the runs that it names."""
    parts: list[Part] = []
    for suite in suites(runs):
        found: dict[PromptRemark, list[str]] = {}
        for run in runs:
            for entry in run.results[suite].scored if suite in run.results else ():
                for remark in prompt_remarks(entry):
                    found.setdefault(remark, []).append(run.name)
        if found:
            several = len(runs) > 1
            header = ("dataset", "split", *(["runs"] if several else []), "remark", "prompts", "examples of a prompt")
            rows = [
                (one.dataset, one.split, *([", ".join(names)] if several else []), one.text, one.prompts, one.examples)
                for one, names in found.items()
            ]
            parts.append(Table(header, rows, title=f"Suite {suite}", names=3 + several))
    return parts


def shared_texts(runs: Sequence[RunData]) -> list[Part]:
    """For each run and suite a table of datasets and one of rows, and which suites were not compared."""
    parts = [part for run in runs for suite, found in run.overlaps.items() for part in _compared(run, suite, found)]
    explained = [Sentences([_EXPLAINED])] if any(isinstance(part, Table) for part in parts) else []
    unchecked = [_unchecked(run) for run in runs if run.results.keys() - run.overlaps.keys()]
    return [*parts, *explained, *([Sentences(unchecked)] if unchecked else [])]


def _unchecked(run: RunData) -> str:
    unchecked = [suite for suite in run.results if suite not in run.overlaps]
    return (
        f"{run.name}: n-gram overlap with {', '.join(unchecked)}: not checked; run "
        f"`t0train mixture check RUN --suite {unchecked[0]} --ngrams`{' and so on' if len(unchecked) > 1 else ''}."
    )


def _sources(found: Overlap) -> str:
    if found.short == found.rows:
        return NOTHING
    return ", ".join(f"{key} ({rows:,})" for key, rows in found.sources.items()) or "none"


def _compared(run: RunData, suite: str, found: OverlapReport) -> Iterator[Part]:
    size, part = f"{found.ngram}-gram", f"{found.threshold:.0%}"
    rows = [
        (
            *(one.dataset, one.split, _sources(one)),
            *(f"{number:,}" for number in (one.rows, one.short)),
            *(NOTHING if one.short == one.rows else f"{number:,}" for number in (one.touched, one.overlapping)),
        )
        for one in found.overlaps
    ]
    if rows:
        header = ("dataset", "split", "in training rows of", "rows", "too short")
        counts = (f"share a {size}", f"share {part} of theirs")
        yield Table((*header, *counts), rows, title=f"{run.name}, {suite}: rows by their {size}s", names=3)
    examples = [
        (
            *(one.dataset, f"{text.row}", text.words),
            f"{text.trained_dataset} {text.trained_row}",
            f"{text.share:.0%}",
        )
        for one in found.overlaps
        for text in one.examples
    ]
    if examples:
        header = ("dataset", "row", f"one {size}", "also in training row", "share of its own")
        yield Table(header, examples, title=f"{run.name}, {suite}: rows that share most", names=4, folded=True)
    if reasons := found.not_compared:
        yield Table(
            ("dataset", "reason"),
            list(reasons.items()),
            title=f"{run.name}, {suite}: {len(reasons)} datasets that were not compared",
            names=2,
            folded=True,
        )
    trained = [event.mixture for event in run.starts if event.mixture]
    if trained and trained[-1] != found.mixture:
        yield Sentences(
            [
                f"{run.name}, {suite}: compared with the mixture {found.mixture}, but the run is trained on "
                f"{trained[-1]}: check again."
            ]
        )


def missing(runs: Sequence[RunData]) -> list[Part]:
    """Each dataset and reason once, with the runs that it is true of."""
    found: dict[str, list[str]] = {}
    for suite in suites(runs):
        for run in runs:
            for one in run.results[suite].missing if suite in run.results else ():
                found.setdefault(f"{suite}: {one.dataset} {one.split}: {one.reason}", []).append(run.name)
    return [Sentences([f"{', '.join(names)}, {said}" for said, names in found.items()])] if found else []
