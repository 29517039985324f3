"""What to know before believing a figure: caveats, odd prompts, texts shared with training, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from t0train.report.page import PageSection, PageTable, Part, Sentences
from t0train.report.run_data import RunData, suites
from t0train.results.display import PromptRemark, overlap_counts, overlap_sources, prompt_remarks
from t0train.results.results_json import OverlapReport

_EXPLAINED = (
    "A record is too short if no text of it has so many words: nothing is known of it then. Quotations and set phrases "
    "are shared, too: this is a reason to look at the records, not a proof."
)


def caveats_section(runs: Sequence[RunData]) -> PageSection:
    """Each caveat once, with the datasets that it belongs to."""
    found: dict[str, dict[str, None]] = {}
    for results in (run.results[suite] for suite in suites(runs) for run in runs if suite in run.results):
        for caveat, datasets in results.caveats.items():
            found.setdefault(caveat, {}).update(dict.fromkeys(datasets))
        for task in results.tasks:
            if task.normalise != "sum":
                text = f"choices were compared by {task.normalise} (normalise), not by their sums of log-probabilities."
                found.setdefault(text, {})[task.dataset] = None
    lines = [f"{', '.join(keys)}: {caveat}" for caveat, keys in found.items()]
    return PageSection("Caveats", [Sentences(lines)] if lines else [])


def remarks_section(runs: Sequence[RunData]) -> PageSection:
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
            parts.append(PageTable(header, rows, title=f"Suite {suite}", names=3 + several))
    return PageSection("Remarks on prompts", parts)


def shared_texts_section(runs: Sequence[RunData]) -> PageSection:
    """For each run and suite a table of datasets and one of records, and which suites were not compared."""
    parts = [
        part for run in runs for suite, found in run.overlaps.items() for part in _overlap_parts(run, suite, found)
    ]
    explained = [Sentences([_EXPLAINED])] if any(isinstance(part, PageTable) for part in parts) else []
    unchecked = [_unchecked(run) for run in runs if run.results.keys() - run.overlaps.keys()]
    last = [Sentences(unchecked)] if unchecked else []
    return PageSection("Texts shared with training records", [*parts, *explained, *last])


def _unchecked(run: RunData) -> str:
    unchecked = [suite for suite in run.results if suite not in run.overlaps]
    return (
        f"{run.name}: n-gram overlap with {', '.join(unchecked)}: not checked; run "
        f"`t0train mixture check RUN --suite {unchecked[0]} --ngrams`{' and so on' if len(unchecked) > 1 else ''}."
    )


def _overlap_parts(run: RunData, suite: str, found: OverlapReport) -> Iterator[Part]:
    size, part = f"{found.ngram}-gram", f"{found.threshold:.0%}"
    rows = [(one.dataset, one.split, overlap_sources(one), *overlap_counts(one)) for one in found.overlaps]
    if rows:
        header = ("dataset", "split", "in training records of", "records", "too short")
        counts = (f"share a {size}", f"share {part} of theirs")
        yield PageTable((*header, *counts), rows, title=f"{run.name}, {suite}: records by their {size}s", names=3)
    examples = [
        (
            *(one.dataset, f"{text.record}", text.words),
            f"{text.trained_dataset} {text.trained_record}",
            f"{text.share:.0%}",
        )
        for one in found.overlaps
        for text in one.examples
    ]
    if examples:
        header = ("dataset", "record", f"one {size}", "also in training record", "share of its own")
        yield PageTable(header, examples, title=f"{run.name}, {suite}: records that share most", names=4, folded=True)
    if reasons := found.not_compared:
        yield PageTable(
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


def missing_section(runs: Sequence[RunData]) -> PageSection:
    """Each dataset and reason once, with the runs that it is true of."""
    found: dict[str, list[str]] = {}
    for suite in suites(runs):
        for run in runs:
            for one in run.results[suite].missing if suite in run.results else ():
                found.setdefault(f"{suite}: {one.dataset} {one.split}: {one.reason}", []).append(run.name)
    lines = [f"{', '.join(names)}, {reason}" for reason, names in found.items()]
    return PageSection("Not evaluated", [Sentences(lines)] if lines else [])
