"""What evaluations found beside accuracies: generated answers, differences, caveats, mistakes, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from t0train.report.parts import Part, Section, Sentences, Table
from t0train.report.remarks import prompt_remarks
from t0train.report.runs import Run
from t0train.report.scores import percent, suites, with_interval
from t0train.report.shared_texts import shared_texts

_ENDS = 300
"""Characters that are shown of the beginning and of the end of a long text: there instructions and questions stand."""


def findings(runs: Sequence[Run]) -> list[Section]:
    """The sections; without parts where there is nothing to say."""
    return [
        Section("Generated answers", _generated(runs)),
        Section("Differences between datasets", _differences(runs)),
        Section("Caveats", _caveats(runs)),
        Section("Remarks on prompts", prompt_remarks(runs)),
        Section("Texts shared with training rows", shared_texts(runs)),
        Section("Checkpoints compared", _selections(runs)),
        Section("Answers to look at", _probes(runs)),
        Section("Mistakes under the worst prompts", _mistakes(runs)),
        Section("Not evaluated", _missing(runs)),
    ]


def _entries(runs: Sequence[Run], suite: str, key: str) -> Iterator[tuple[Run, dict[str, Any]]]:
    for run in runs:
        for entry in run.results.get(suite, {}).get(key, []):
            yield run, entry


_GENERATED = (
    *("dataset", "split", "run", "metric", "prompts", "rows", "median", "mean"),
    *("constant answer", "medians of all metrics"),
)


def _generated(runs: Sequence[Run]) -> list[Part]:
    parts: list[Part] = []
    for suite in suites(runs):
        rows = [
            (
                *(entry["dataset"], entry["split"], run.name, entry["metric"], f"{len(entry['prompts'])}"),
                f"{entry['rows']:,}",
                with_interval(entry["median"], entry["interval"]),
                with_interval(entry["mean"], entry["mean_interval"]),
                percent(entry.get("metric_baselines", {}).get(entry["metric"], {}).get("constant")),
                ", ".join(f"{name} {percent(values['median'])}" for name, values in entry["metrics"].items()),
            )
            for run, entry in _entries(runs, suite, "generated")
        ]
        if rows:
            parts.append(Table(_GENERATED, rows, title=f"Suite {suite}, in %", names=4, notes=1))
        parts += [_generated_prompts(run, suite, entry) for run, entry in _entries(runs, suite, "generated")]
    if any(entry.get("metric_baselines") for suite in suites(runs) for _, entry in _entries(runs, suite, "generated")):
        parts.append(Sentences(["The constant answer is the most frequent right one, written whatever is asked."]))
    return parts


def _generated_prompts(run: Run, suite: str, entry: dict[str, Any]) -> Table:
    rows = [
        (
            *(prompt["name"], f"{prompt['rows']:,}", with_interval(prompt["score"], prompt["interval"])),
            ", ".join(f"{name} {percent(value)}" for name, value in prompt["metrics"].items()),
        )
        for prompt in entry["prompts"]
    ]
    title = f"{run.name}, {suite}: {entry['dataset']} {entry['split']}, every prompt"
    return Table(("prompt", "rows", entry["metric"], "all metrics"), rows, title=title, notes=1, folded=True)


def _differences(runs: Sequence[Run]) -> list[Part]:
    rows = [
        (
            *(entry["name"], entry["of"], entry["minus"], run.name, f"{entry['items']:,}"),
            with_interval(entry["median"], entry["median_interval"]),
            with_interval(entry["mean"], entry["mean_interval"]),
        )
        for suite in suites(runs)
        for run, entry in _entries(runs, suite, "differences")
    ]
    if not rows:
        return []
    header = ("difference", "of", "minus", "run", "rows", "median", "mean")
    return [Table(header, rows, title="In points, with 95 % intervals of a paired bootstrap over rows", names=4)]


def _caveats(runs: Sequence[Run]) -> list[Part]:
    """Each caveat once, with the datasets that it belongs to."""
    found: dict[str, dict[str, None]] = {}
    for suite in suites(runs):
        for key in ("tasks", "generated"):
            for _, entry in _entries(runs, suite, key):
                if entry.get("caveat"):
                    found.setdefault(entry["caveat"], {})[entry["dataset"]] = None
                if (normalise := entry.get("normalise", "sum")) != "sum":
                    text = f"choices were compared by {normalise} (normalise), not by their sums of log-probabilities."
                    found.setdefault(text, {})[entry["dataset"]] = None
    return [Sentences([f"{', '.join(keys)}: {caveat}" for caveat, keys in found.items()])] if found else []


def _selections(runs: Sequence[Run]) -> list[Part]:
    parts: list[Part] = []
    for run in runs:
        for suite, selection in run.selections.items():
            datasets = list(selection["candidates"][0]["medians"])
            rows = [
                (f"{one['step']:,}", percent(one["score"]), *(percent(one["medians"].get(key)) for key in datasets))
                for one in selection["candidates"]
            ]
            parts.append(
                Table(("step", "mean", *datasets), rows, title=f"{run.name}, {suite}: median over prompts in %")
            )
            left_out = [f"left out: {key}: {reason}" for key, reason in selection["left_out"].items()]
            parts.append(Sentences([f"Step {selection['step']:,} was selected: {selection['rule']}.", *left_out]))
    return parts


def _probes(runs: Sequence[Run]) -> list[Part]:
    rows = [
        (probe["name"], run.name, _shortened(probe["input"]), _shortened(probe["output"]))
        for suite in suites(runs)
        for run, probe in _entries(runs, suite, "probes")
    ]
    return [Table(("probe", "run", "the model reads", "and writes"), rows, names=4)] if rows else []


def _mistakes(runs: Sequence[Run]) -> list[Part]:
    parts: list[Part] = []
    for suite in suites(runs):
        for run, entry in _entries(runs, suite, "tasks"):
            rows = [
                (
                    f"{mistake['row']}",
                    _shortened(mistake["input"]),
                    _shortened(mistake["answer"]),
                    "(no choice)" if mistake["gold"] is None else _shortened(mistake["gold"]),
                )
                for mistake in entry.get("mistakes", [])
            ]
            if rows:
                title = f"{run.name}, {suite}: {entry['dataset']}, prompt {entry['mistakes'][0]['prompt']}"
                header = ("row", "input", "answer", "right answer")
                parts.append(Table(header, rows, title=title, names=4, folded=True))
    return parts


def _missing(runs: Sequence[Run]) -> list[Part]:
    """Each dataset and reason once, with the runs that it is true of."""
    found: dict[str, list[str]] = {}
    for suite in suites(runs):
        for run, entry in _entries(runs, suite, "missing"):
            found.setdefault(f"{suite}: {entry['dataset']} {entry['split']}: {entry['reason']}", []).append(run.name)
    return [Sentences([f"{', '.join(names)}, {said}" for said, names in found.items()])] if found else []


def _shortened(text: str) -> str:
    """The ends of a long text."""
    return text if len(text) <= 2 * _ENDS else f"{text[:_ENDS]} ... {text[-_ENDS:]}"
