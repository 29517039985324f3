"""What models answered: generated answers and their scores, probes, mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from t0train.report.page import PageSection, PageTable, Part, Sentences
from t0train.report.run_data import RunData, results_of, suites
from t0train.results.display import percent, with_interval
from t0train.results.results_json import GeneratedScore

_ENDS = 300
"""Characters that are shown of the beginning and of the end of a long text, where instructions and questions are."""


def _generated(runs: Sequence[RunData], suite: str) -> Iterator[tuple[RunData, GeneratedScore]]:
    for run, results in results_of(runs, suite):
        for entry in results.generated:
            yield run, entry


_GENERATED = (
    *("dataset", "split", "run", "metric", "prompts", "records", "median", "mean"),
    *("constant answer", "medians of all metrics"),
)


def generated_section(runs: Sequence[RunData]) -> PageSection:
    """What models wrote, by dataset and by prompt."""
    parts: list[Part] = []
    for suite in suites(runs):
        rows = [
            (
                *(entry.dataset, entry.split, run.name, entry.metric, f"{len(entry.prompts)}"),
                f"{entry.records:,}",
                with_interval(entry.median, entry.interval),
                with_interval(entry.mean, entry.mean_interval),
                percent(entry.metric_baselines.get(entry.metric, {}).get("constant")),
                ", ".join(f"{name} {percent(values.median)}" for name, values in entry.metrics.items()),
            )
            for run, entry in _generated(runs, suite)
        ]
        if rows:
            parts.append(PageTable(_GENERATED, rows, title=f"Suite {suite}, in %", names=4, notes=1))
        parts += [_generated_prompts(run, suite, entry) for run, entry in _generated(runs, suite)]
    if any(entry.metric_baselines for suite in suites(runs) for _, entry in _generated(runs, suite)):
        parts.append(Sentences(["The constant answer is the most frequent right one, written whatever the prompt."]))
    return PageSection("Generated answers", parts)


def _generated_prompts(run: RunData, suite: str, entry: GeneratedScore) -> PageTable:
    rows = [
        (
            *(prompt.name, f"{prompt.records:,}", with_interval(prompt.score, prompt.interval)),
            ", ".join(f"{name} {percent(value)}" for name, value in prompt.metrics.items()),
        )
        for prompt in entry.prompts
    ]
    title = f"{run.name}, {suite}: {entry.dataset} {entry.split}, every prompt"
    return PageTable(("prompt", "records", entry.metric, "all metrics"), rows, title=title, notes=1, folded=True)


def probes_section(runs: Sequence[RunData]) -> PageSection:
    """Prompts that are not scored, and what models write."""
    rows = [
        (probe.name, run.name, _shortened(probe.input), _shortened(probe.output))
        for suite in suites(runs)
        for run, results in results_of(runs, suite)
        for probe in results.probes
    ]
    table = PageTable(("probe", "run", "the model reads", "and writes"), rows, names=4)
    return PageSection("Answers to look at", [table] if rows else [])


def mistakes_section(runs: Sequence[RunData]) -> PageSection:
    """Some wrong answers under the prompts with the lowest accuracies."""
    parts: list[Part] = []
    for suite in suites(runs):
        ranked = [(run, entry) for run, results in results_of(runs, suite) for entry in results.tasks]
        for run, entry in ranked:
            rows = [
                (
                    f"{mistake.record}",
                    _shortened(mistake.input),
                    _shortened(mistake.answer),
                    "(no choice)" if mistake.gold is None else _shortened(mistake.gold),
                )
                for mistake in entry.mistakes
            ]
            if rows:
                title = f"{run.name}, {suite}: {entry.dataset}, prompt {entry.mistakes[0].prompt}"
                header = ("record", "input", "answer", "right answer")
                parts.append(PageTable(header, rows, title=title, names=4, folded=True))
    return PageSection("Mistakes under the worst prompts", parts)


def _shortened(text: str) -> str:
    """The ends of a long text."""
    return text if len(text) <= 2 * _ENDS else f"{text[:_ENDS]} ... {text[-_ENDS:]}"
