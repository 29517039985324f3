"""The accuracies of ranked datasets: the main table and figure, every prompt, and the figures behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t0train.report import figures
from t0train.report.page import PageSection, PageTable, Part, Sentences, picture
from t0train.report.run_data import RunData, suites
from t0train.results.display import NOTHING, percent, with_interval
from t0train.results.results_json import EvalResults, RankedPromptScore, RankedScore

_EXPLAINED = (
    "Median and mean are over the prompts of a dataset; brackets hold 95 % bootstrap intervals over its "
    "records, so neither the spread over prompts nor that over training seeds is in them. Chance is a uniform "
    "guess among the choices, majority the best constant answer, untrained the same model before training.",
    "An interval without width, such as 100.0 [100.0, 100.0], says that all records agreed; a bootstrap "
    "cannot say more, and with few records the doubt is larger.",
)


class Headline(NamedTuple):
    """One run on one dataset of a suite. Accuracies are fractions of 1; `untrained` is a mean over prompts."""

    suite: str
    dataset: str
    split: str
    run: str
    records: int
    prompts: int
    chance: float
    majority: float
    untrained: float | None
    median: float
    median_interval: tuple[float, float]
    mean: float
    mean_interval: tuple[float, float]


def ranked_datasets(results: EvalResults | None) -> dict[tuple[str, str], RankedScore]:
    """The ranked entries of results by (dataset, split)."""
    return {entry.key: entry for entry in results.tasks} if results else {}


def headlines(runs: Sequence[RunData]) -> list[Headline]:
    """Every (suite, dataset, run), ordered by suite, then as the suite lists its datasets, then as the runs came."""
    return [line for suite in suites(runs) for line in _headlines_of_suite(runs, suite)]


def _headlines_of_suite(runs: Sequence[RunData], suite: str) -> Iterator[Headline]:
    for dataset, split in dataset_keys(runs, suite):
        for run in runs:
            entry = ranked_datasets(run.results.get(suite)).get((dataset, split))
            if entry is None:
                continue
            before = before_training(run, suite, entry)
            yield Headline(
                suite=suite,
                dataset=dataset,
                split=split,
                run=run.name,
                records=entry.records,
                prompts=len(entry.prompts),
                chance=entry.chance,
                majority=entry.majority,
                untrained=before.mean if before else None,
                median=entry.median,
                median_interval=entry.interval,
                mean=entry.mean,
                mean_interval=entry.mean_interval,
            )


def before_training(run: RunData, suite: str, entry: RankedScore) -> RankedScore | None:
    """The untrained model's entry for the same records and prompts; None if there is none."""
    before = _untrained_entry(run, suite, entry)
    return before if before and _conditions(before) == _conditions(entry) else None


def _conditions(entry: RankedScore) -> tuple[object, ...]:
    """What must be equal for two figures to be compared: records, prompts, and how answers are judged."""
    prompts = sorted((prompt.task, prompt.identity) for prompt in entry.prompts)
    return (entry.records, entry.revision, entry.normalise, prompts)


def _untrained_entry(run: RunData, suite: str, entry: RankedScore) -> RankedScore | None:
    """The untrained model's entry for the same dataset and split, of whatever records."""
    return ranked_datasets(run.untrained.get(suite)).get(entry.key)


def dataset_keys(runs: Sequence[RunData], suite: str) -> list[tuple[str, str]]:
    """(dataset, split) pairs of a suite that any run has results for, each once, in the suite's order."""
    return list(dict.fromkeys(key for run in runs for key in ranked_datasets(run.results.get(suite))))


def accuracy_section(runs: Sequence[RunData]) -> PageSection:
    """One table and one figure for each suite, and what they mean."""
    if not suites(runs):
        advice = "No evaluation yet: run `t0train eval` on the run folder, then write the report again."
        return PageSection("Accuracy", [Sentences([advice])])
    parts = [part for suite in suites(runs) for part in _of_suite(runs, suite)]
    return PageSection("Accuracy", [*parts, Sentences(_EXPLAINED)] if parts else [])


def _of_suite(runs: Sequence[RunData], suite: str) -> list[Part]:
    lines = list(_headlines_of_suite(runs, suite))
    if not lines:  # nothing is ranked in this suite
        return []
    held_out_by_run = {run.name: held_out(run, suite) for run in runs}
    is_remarkable = any(found != "yes" for one in held_out_by_run.values() for found in one.values())
    run_column = ["run"] if len(runs) > 1 else []
    held_out_column = ["held out"] if is_remarkable else []
    untrained_column = ["untrained"] if any(line.untrained is not None for line in lines) else []
    header = ["dataset", "split", *run_column, *held_out_column, "prompts", "records", "median", "mean"]
    header += ["chance", "majority", *untrained_column]
    rows = [
        (
            line.dataset,
            line.split,
            *([line.run] if run_column else []),
            *([held_out_by_run[line.run][line.dataset]] if held_out_column else []),
            f"{line.prompts}",
            f"{line.records:,}",
            with_interval(line.median, line.median_interval),
            with_interval(line.mean, line.mean_interval),
            percent(line.chance),
            percent(line.majority),
            *([percent(line.untrained)] if untrained_column else []),
        )
        for line in lines
    ]
    names = 2 + len(run_column) + len(held_out_column)
    parts: list[Part] = [PageTable(header, rows, title=f"Suite {suite}, accuracy in %", names=names)]
    parts += _further_metrics(runs, suite)
    parts.append(Sentences([_describe_scored(run, suite) for run in runs if suite in run.results]))
    if apart := [sentence for run in runs for sentence in _untrained_left_out(run, suite)]:
        parts.append(Sentences(apart))
    if held_out_column:
        parts.append(Sentences([sentence for run in runs for sentence in _shared_with_training(run, suite)]))
    caption = "Accuracy over prompts: a box for each model, in the order of the legend, a dot for each prompt."
    parts.append(picture(f"accuracy-{suite}", caption, figures.draw_accuracies(accuracy_panels(runs, suite))))
    return parts


def held_out(run: RunData, suite: str) -> dict[str, str]:
    """By dataset of a suite that a run was scored on, whether it is held out: what table and figure say."""
    if suite not in run.results:
        return {}
    found = run.results[suite].not_held_out
    keys = [dataset for dataset, _ in ranked_datasets(run.results[suite])]
    if found is None:
        return dict.fromkeys(keys, "unknown")
    kinds = {key: one.kind for key, one in found.items()}
    return {
        key: "yes" if key not in kinds else "dataset, not family" if kinds[key] == "family" else "no" for key in keys
    }


def _shared_with_training(run: RunData, suite: str) -> Iterator[str]:
    """What a run's training shares with datasets of the suite."""
    if suite not in run.results:
        return
    found = run.results[suite].not_held_out
    if found is None:
        yield f"{run.name}: what its training shares with the suite was not known when it was evaluated."
    yield from (f"{run.name}: {one.sentence}." for one in (found or {}).values())


_IN_TITLES = {"no": "not held out", "dataset, not family": "family trained on", "unknown": "held out: unknown"}


def _held_out_remark(runs: Sequence[RunData], suite: str, dataset: str) -> str:
    """What the title of a dataset's panel says on whether it is held out: for each run where they differ."""
    found = {run.name: one[dataset] for run in runs if dataset in (one := held_out(run, suite))}
    if set(found.values()) == {"yes"}:
        return ""
    if len(set(found.values())) == 1:
        return f" ({_IN_TITLES[next(iter(found.values()))]})"
    parts = (f"{name}: {_IN_TITLES[standing]}" for name, standing in found.items() if standing != "yes")
    return f" ({'; '.join(parts)})"


def _further_metrics(runs: Sequence[RunData], suite: str) -> list[Part]:
    """The further metrics of the suite, e.g. F1, and what guesses and constant answers get by them."""
    rows = []
    for dataset, split in dataset_keys(runs, suite):
        for run in runs:
            entry = ranked_datasets(run.results.get(suite)).get((dataset, split))
            for metric, over_prompts in entry.metrics.items() if entry else ():
                assert entry is not None
                baselines = entry.metric_baselines.get(metric, {})
                rows.append(
                    (
                        *(dataset, split, *([run.name] if len(runs) > 1 else []), metric),
                        with_interval(over_prompts.median, entry.metric_intervals.get(metric)),
                        percent(over_prompts.mean),
                        percent(baselines.get("chance")),
                        percent(baselines.get("majority")),
                    )
                )
    if not rows:
        return []
    header = ("dataset", "split", *(["run"] if len(runs) > 1 else []), "metric", "median", "mean", "chance", "majority")
    return [PageTable(header, rows, title=f"Suite {suite}, further metrics in %", names=len(header) - 4)]


def _describe_scored(run: RunData, suite: str) -> str:
    results = run.results[suite]
    step, limit = results.model.step, results.limit
    model = f"the checkpoint of step {step:,}" if step is not None else results.model.name
    sentence = f"{run.name}: {model} was scored" + (
        f", on at most {limit:,} records of each dataset." if limit else "."
    )
    last = run.steps[-1].step if run.steps else 0
    if step is not None and step < last and not results.model.selected:
        sentence += f" The run has been trained on since, to step {last:,}."
    return sentence


def _untrained_left_out(run: RunData, suite: str) -> Iterator[str]:
    """Say so where the untrained model was evaluated on other records or prompts, and is left out therefore."""
    apart: dict[str, list[str]] = {}
    for entry in ranked_datasets(run.results.get(suite)).values():
        before = _untrained_entry(run, suite, entry)
        if before and not before_training(run, suite, entry):
            same_records = (before.records, before.revision) == (entry.records, entry.revision)
            apart.setdefault("under other prompts" if same_records else "on other records", []).append(entry.dataset)
    for how, keys in apart.items():
        yield (
            f"{run.name}, untrained: evaluated {how} of {', '.join(keys)}, and left out there; evaluate again with "
            "--untrained."
        )


def accuracy_panels(runs: Sequence[RunData], suite: str) -> list[figures.Panel]:
    """The boxes of each dataset of a suite: every run, and before it its untrained model where records are the same."""
    drawn = []
    for dataset, split in dataset_keys(runs, suite):
        boxes = []
        for index, run in enumerate(runs):
            before = f"{run.name}, untrained" if len(runs) > 1 else "untrained"
            scored = ranked_datasets(run.results.get(suite)).get((dataset, split))
            if scored is None:
                continue
            for name, is_trained, entry in (
                (before, False, before_training(run, suite, scored)),
                (run.name, True, scored),
            ):
                if entry is None:
                    continue
                accuracies = [prompt.accuracy for prompt in entry.prompts]
                baselines = (entry.chance, entry.majority)
                boxes.append(figures.Box(name, figures.colour(index), is_trained, accuracies, *baselines))
        drawn.append(figures.Panel(dataset + _held_out_remark(runs, suite, dataset), boxes))
    return drawn


def every_prompt_section(runs: Sequence[RunData]) -> PageSection:
    """A folded table of prompts for each dataset."""
    parts: list[Part] = []
    for run in runs:
        owner = f"{run.name}, " if len(runs) > 1 else ""
        for suite, results in run.results.items():
            for key, entry in ranked_datasets(results).items():
                before = before_training(run, suite, entry)
                untrained = {prompt.task: prompt.accuracy for prompt in before.prompts} if before else {}
                parts.append(_prompt_table(f"{owner}{suite}: {key[0]} {key[1]}", entry, untrained))
    return PageSection("Every prompt", parts or [Sentences(["No evaluation yet."])])


def _prompt_table(title: str, entry: RankedScore, untrained: dict[str, float]) -> PageTable:
    """The prompts of a dataset; columns of further metrics and of remarks only where there are any."""
    prompts = entry.prompts
    metrics = list(dict.fromkeys(metric for prompt in prompts for metric in prompt.metrics))
    left_out = entry.left_out.items()
    notes = int(bool(left_out) or any(prompt.remarks for prompt in prompts))
    header = (
        *("prompt", "records", "accuracy", "chance", "majority", *(["untrained"] if untrained else [])),
        *(*metrics, "right answer is no choice"),
    )
    rows = [
        (
            prompt.name,
            f"{prompt.records:,}",
            with_interval(prompt.accuracy, prompt.interval),
            percent(prompt.chance),
            percent(prompt.majority),
            *([percent(untrained.get(prompt.task))] if untrained else []),
            *(percent(prompt.metrics.get(metric)) for metric in metrics),
            f"{prompt.gold_not_in_choices:,}",
            *[_prompt_remarks(prompt)] * notes,
        )
        for prompt in prompts
    ]
    rows += [(name, *[NOTHING] * (len(header) - 1), f"not ranked: {reason}") for name, reason in left_out]
    return PageTable((*header, *["remarks"] * notes), rows, title=title, notes=notes, folded=True)


def _prompt_remarks(prompt: RankedPromptScore) -> str:
    return ", ".join(f"{text}: {number:,}" for text, number in prompt.remarks.items()) or NOTHING
