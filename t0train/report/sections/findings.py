"""What evaluations found beside accuracies: generated answers, differences, selected checkpoints, probes, mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from t0train.report.elements import Part, Section, Sentences, Table
from t0train.report.run_data import RunData, suites
from t0train.report.sections.caveats import caveats, missing, remarks_on_prompts, shared_texts
from t0train.results.display import percent, with_interval
from t0train.results.results_json import EvalResults, GeneratedScore

_ENDS = 300
"""Characters that are shown of the beginning and of the end of a long text: there instructions and questions stand."""


def findings(runs: Sequence[RunData]) -> list[Section]:
    """The sections on what evaluations found; without parts where there is nothing to say."""
    return [
        Section("Generated answers", generated(runs)),
        Section("Differences between datasets", differences(runs)),
        Section("Caveats", caveats(runs)),
        Section("Remarks on prompts", remarks_on_prompts(runs)),
        Section("Texts shared with training rows", shared_texts(runs)),
        Section("Checkpoints compared", selections(runs)),
        Section("Answers to look at", probes(runs)),
        Section("Mistakes under the worst prompts", mistakes(runs)),
        Section("Not evaluated", missing(runs)),
    ]


def _results(runs: Sequence[RunData], suite: str) -> Iterator[tuple[RunData, EvalResults]]:
    for run in runs:
        if suite in run.results:
            yield run, run.results[suite]


def _generated(runs: Sequence[RunData], suite: str) -> Iterator[tuple[RunData, GeneratedScore]]:
    for run, results in _results(runs, suite):
        for entry in results.generated:
            yield run, entry


_GENERATED = (
    *("dataset", "split", "run", "metric", "prompts", "rows", "median", "mean"),
    *("constant answer", "medians of all metrics"),
)


def generated(runs: Sequence[RunData]) -> list[Part]:
    """What models wrote, by dataset and by prompt."""
    parts: list[Part] = []
    for suite in suites(runs):
        rows = [
            (
                *(entry.dataset, entry.split, run.name, entry.metric, f"{len(entry.prompts)}"),
                f"{entry.rows:,}",
                with_interval(entry.median, entry.interval),
                with_interval(entry.mean, entry.mean_interval),
                percent(entry.metric_baselines.get(entry.metric, {}).get("constant")),
                ", ".join(f"{name} {percent(values.median)}" for name, values in entry.metrics.items()),
            )
            for run, entry in _generated(runs, suite)
        ]
        if rows:
            parts.append(Table(_GENERATED, rows, title=f"Suite {suite}, in %", names=4, notes=1))
        parts += [_generated_prompts(run, suite, entry) for run, entry in _generated(runs, suite)]
    if any(entry.metric_baselines for suite in suites(runs) for _, entry in _generated(runs, suite)):
        parts.append(Sentences(["The constant answer is the most frequent right one, written whatever is asked."]))
    return parts


def _generated_prompts(run: RunData, suite: str, entry: GeneratedScore) -> Table:
    rows = [
        (
            *(prompt.name, f"{prompt.rows:,}", with_interval(prompt.score, prompt.interval)),
            ", ".join(f"{name} {percent(value)}" for name, value in prompt.metrics.items()),
        )
        for prompt in entry.prompts
    ]
    title = f"{run.name}, {suite}: {entry.dataset} {entry.split}, every prompt"
    return Table(("prompt", "rows", entry.metric, "all metrics"), rows, title=title, notes=1, folded=True)


def differences(runs: Sequence[RunData]) -> list[Part]:
    """Differences between datasets, as suites ask for."""
    rows = [
        (
            *(entry.name, entry.of, entry.minus, run.name, f"{entry.items:,}"),
            with_interval(entry.median, entry.median_interval),
            with_interval(entry.mean, entry.mean_interval),
        )
        for suite in suites(runs)
        for run, results in _results(runs, suite)
        for entry in results.differences
    ]
    if not rows:
        return []
    header = ("difference", "of", "minus", "run", "rows", "median", "mean")
    return [Table(header, rows, title="In points, with 95 % intervals of a paired bootstrap over rows", names=4)]


def selections(runs: Sequence[RunData]) -> list[Part]:
    """The checkpoints of a run that were compared, and the selected one."""
    parts: list[Part] = []
    for run in runs:
        for suite, selection in run.selections.items():
            datasets = list(selection.candidates[0].medians)
            rows = [
                (f"{one.step:,}", percent(one.score), *(percent(one.medians.get(key)) for key in datasets))
                for one in selection.candidates
            ]
            parts.append(
                Table(("step", "mean", *datasets), rows, title=f"{run.name}, {suite}: median over prompts in %")
            )
            left_out = [f"left out: {key}: {reason}" for key, reason in selection.left_out.items()]
            parts.append(Sentences([f"Step {selection.step:,} was selected: {selection.rule}.", *left_out]))
    return parts


def probes(runs: Sequence[RunData]) -> list[Part]:
    """Prompts that are not scored, and what models write."""
    rows = [
        (probe.name, run.name, _shortened(probe.input), _shortened(probe.output))
        for suite in suites(runs)
        for run, results in _results(runs, suite)
        for probe in results.probes
    ]
    return [Table(("probe", "run", "the model reads", "and writes"), rows, names=4)] if rows else []


def mistakes(runs: Sequence[RunData]) -> list[Part]:
    """Some wrong answers under the prompts with the lowest accuracies."""
    parts: list[Part] = []
    for suite in suites(runs):
        ranked = [(run, entry) for run, results in _results(runs, suite) for entry in results.tasks]
        for run, entry in ranked:
            rows = [
                (
                    f"{mistake.row}",
                    _shortened(mistake.input),
                    _shortened(mistake.answer),
                    "(no choice)" if mistake.gold is None else _shortened(mistake.gold),
                )
                for mistake in entry.mistakes
            ]
            if rows:
                title = f"{run.name}, {suite}: {entry.dataset}, prompt {entry.mistakes[0].prompt}"
                header = ("row", "input", "answer", "right answer")
                parts.append(Table(header, rows, title=title, names=4, folded=True))
    return parts


def _shortened(text: str) -> str:
    """The ends of a long text."""
    return text if len(text) <= 2 * _ENDS else f"{text[:_ENDS]} ... {text[-_ENDS:]}"
