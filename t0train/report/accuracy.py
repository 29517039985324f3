"""The accuracies of ranked datasets: the main table and figure, and every prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from t0train.report import figures
from t0train.report.parts import Part, Sentences, Table, picture
from t0train.report.runs import Run
from t0train.report.scores import (
    NOTHING,
    before_training,
    datasets,
    evaluated,
    headlines,
    percent,
    suites,
    untrained_entry,
    with_interval,
)


def accuracy(runs: Sequence[Run]) -> list[Part]:
    """One table and one figure for each suite, and what they mean."""
    if not suites(runs):
        return [Sentences(["No evaluation yet: run `t0train eval` on the run folder, then write the report again."])]
    lines = headlines(runs)
    parts: list[Part] = []
    for suite in suites(runs):
        standing = {run.name: held_out(run, suite) for run in runs}
        column = ("held out",) if any(found != "yes" for one in standing.values() for found in one.values()) else ()
        of_suite = [line for line in lines if line.suite == suite]
        untrained = ("untrained",) if any(line.untrained is not None for line in of_suite) else ()
        rows = [
            (
                line.dataset,
                line.split,
                *([line.run] if len(runs) > 1 else []),
                *([standing[line.run][line.dataset]] if column else []),
                f"{line.prompts}",
                f"{line.rows:,}",
                with_interval(line.median, line.median_interval),
                with_interval(line.mean, line.mean_interval),
                percent(line.chance),
                percent(line.majority),
                *([percent(line.untrained)] if untrained else []),
            )
            for line in of_suite
        ]
        if not rows:  # nothing is ranked in this suite
            continue
        model = ("run",) if len(runs) > 1 else ()
        header = ("dataset", "split", *model, *column, "prompts", "rows", "median", "mean", "chance", "majority")
        names = 2 + len(model) + len(column)
        parts.append(Table((*header, *untrained), rows, title=f"Suite {suite}, accuracy in %", names=names))
        parts += _further_metrics(runs, suite)
        parts.append(Sentences([_scored(run, suite) for run in runs if suite in run.results]))
        if apart := [sentence for run in runs for sentence in _other_rows(run, suite)]:
            parts.append(Sentences(apart))
        if column:
            parts.append(Sentences([sentence for run in runs for sentence in _shared(run, suite)]))
        caption = "Accuracy over prompts: a box for each model, in the order of the legend, a dot for each prompt."
        parts.append(picture(f"accuracy-{suite}", caption, figures.accuracy_boxes(panels(runs, suite))))
    if not parts:
        return []
    parts.append(
        Sentences(
            [
                "Median and mean are over the prompts of a dataset; brackets hold 95 % bootstrap intervals over its "
                "rows, so neither the spread over prompts nor that over training seeds is in them. Chance is a uniform "
                "guess among the choices, majority the best constant answer, untrained the same model before training.",
                "An interval without width, such as 100.0 [100.0, 100.0], says that all rows agreed; a bootstrap "
                "cannot say more, and with few rows the doubt is larger.",
            ]
        )
    )
    return parts


def held_out(run: Run, suite: str) -> dict[str, str]:
    """By dataset of a suite that a run was scored on, whether it is held out: what table and figure say."""
    if suite not in run.results:
        return {}
    found = run.results[suite].get("not_held_out")
    keys = [dataset for dataset, _ in datasets(run.results[suite])]
    if found is None and "not_held_out" in run.results[suite]:
        return dict.fromkeys(keys, "unknown")
    kinds = {key: one["kind"] for key, one in (found or {}).items()}
    return {
        key: "yes" if key not in kinds else "dataset, not family" if kinds[key] == "family" else "no" for key in keys
    }


def _shared(run: Run, suite: str) -> Iterator[str]:
    """What a run's training shares with datasets of the suite."""
    results = run.results.get(suite, {})
    if results.get("not_held_out", {}) is None:
        yield f"{run.name}: what its training shares with the suite could not be told when it was evaluated."
    yield from (f"{run.name}: {one['sentence']}." for one in (results.get("not_held_out") or {}).values())


_IN_TITLES = {"no": "not held out", "dataset, not family": "family trained on", "unknown": "held out: unknown"}


def _remark(runs: Sequence[Run], suite: str, dataset: str) -> str:
    """What the title of a dataset's panel says on whether it is held out: for each run where they differ."""
    found = {run.name: one[dataset] for run in runs if dataset in (one := held_out(run, suite))}
    if set(found.values()) == {"yes"}:
        return ""
    if len(set(found.values())) == 1:
        return f" ({_IN_TITLES[next(iter(found.values()))]})"
    parts = (f"{name}: {_IN_TITLES[standing]}" for name, standing in found.items() if standing != "yes")
    return f" ({'; '.join(parts)})"


def _further_metrics(runs: Sequence[Run], suite: str) -> list[Part]:
    """What else the suite asks for, e.g. F1, beside what guesses and constant answers get by it."""
    rows = []
    for dataset, split in evaluated(runs, suite):
        for run in runs:
            entry = datasets(run.results.get(suite)).get((dataset, split), {})
            for metric, over_prompts in entry.get("metrics", {}).items():
                baselines = entry.get("metric_baselines", {}).get(metric, {})
                rows.append(
                    (
                        *(dataset, split, *([run.name] if len(runs) > 1 else []), metric),
                        with_interval(over_prompts["median"], entry.get("metric_intervals", {}).get(metric)),
                        percent(over_prompts["mean"]),
                        percent(baselines.get("chance")),
                        percent(baselines.get("majority")),
                    )
                )
    if not rows:
        return []
    header = ("dataset", "split", *(["run"] if len(runs) > 1 else []), "metric", "median", "mean", "chance", "majority")
    return [Table(header, rows, title=f"Suite {suite}, further metrics in %", names=len(header) - 4)]


def _scored(run: Run, suite: str) -> str:
    results = run.results[suite]
    step, limit = results["model"].get("step"), results.get("limit")
    model = f"the checkpoint of step {step:,}" if step is not None else results["model"].get("name", "a model")
    said = f"{run.name}: {model} was scored" + (f", on at most {limit:,} rows of each dataset." if limit else ".")
    last = run.of_kind("step")[-1]["step"] if run.of_kind("step") else 0
    if step is not None and step < last and not results["model"].get("selected"):
        said += f" The run has been trained on since, to step {last:,}."
    return said


def _other_rows(run: Run, suite: str) -> Iterator[str]:
    """Say so where the untrained model was evaluated on other rows or prompts, and is left out therefore."""
    apart: dict[str, list[str]] = {}
    for entry in datasets(run.results.get(suite)).values():
        before = untrained_entry(run, suite, entry)
        if before and not before_training(run, suite, entry):
            same_rows = all(before.get(key) == entry.get(key) for key in ("rows", "revision"))
            apart.setdefault("under other prompts" if same_rows else "on other rows", []).append(entry["dataset"])
    for how, keys in apart.items():
        yield (
            f"{run.name}, untrained: evaluated {how} of {', '.join(keys)}, and left out there; evaluate again with "
            "--untrained."
        )


def panels(runs: Sequence[Run], suite: str) -> list[figures.Panel]:
    """The boxes of each dataset of a suite: every run, and before it its untrained model where rows are the same."""
    drawn = []
    for dataset, split in evaluated(runs, suite):
        boxes = []
        for index, run in enumerate(runs):
            before = f"{run.name}, untrained" if len(runs) > 1 else "untrained"
            scored = datasets(run.results.get(suite)).get((dataset, split))
            if scored is None:
                continue
            for name, is_trained, entry in (
                (before, False, before_training(run, suite, scored)),
                (run.name, True, scored),
            ):
                if entry is None:
                    continue
                accuracies = [prompt["accuracy"] for prompt in entry["prompts"]]
                baselines = (entry["chance"], entry["majority"])
                boxes.append(figures.Box(name, figures.colour(index), is_trained, accuracies, *baselines))
        drawn.append(figures.Panel(dataset + _remark(runs, suite, dataset), boxes))
    return drawn


def every_prompt(runs: Sequence[Run]) -> list[Part]:
    """A folded table of prompts for each dataset."""
    parts: list[Part] = []
    for run in runs:
        owner = f"{run.name}, " if len(runs) > 1 else ""
        for suite, results in run.results.items():
            for key, entry in datasets(results).items():
                before = before_training(run, suite, entry) or {"prompts": []}
                untrained = {prompt["task"]: prompt["accuracy"] for prompt in before["prompts"]}
                parts.append(_prompts(f"{owner}{suite}: {key[0]} {key[1]}", entry, untrained))
    return parts or [Sentences(["No evaluation yet."])]


def _prompts(title: str, entry: dict[str, Any], untrained: dict[str, float]) -> Table:
    """The prompts of a dataset; columns of further metrics and of remarks only where there are any."""
    prompts = entry["prompts"]
    metrics = list(dict.fromkeys(metric for prompt in prompts for metric in prompt.get("metrics", {})))
    left_out = entry.get("left_out", {}).items()
    notes = int(bool(left_out) or any(prompt.get("remarks") for prompt in prompts))
    header = (
        *("prompt", "rows", "accuracy", "chance", "majority", *(["untrained"] if untrained else [])),
        *(*metrics, "right answer is no choice"),
    )
    rows = [
        (
            prompt["name"],
            f"{prompt['rows']:,}",
            with_interval(prompt["accuracy"], prompt.get("interval")),
            percent(prompt["chance"]),
            percent(prompt["majority"]),
            *([percent(untrained.get(prompt["task"]))] if untrained else []),
            *(percent(prompt.get("metrics", {}).get(metric)) for metric in metrics),
            f"{prompt['gold_not_in_choices']:,}",
            *[_remarks(prompt)] * notes,
        )
        for prompt in prompts
    ]
    rows += [(name, *[NOTHING] * (len(header) - 1), f"not ranked: {reason}") for name, reason in left_out]
    return Table((*header, *["remarks"] * notes), rows, title=title, notes=notes, folded=True)


def _remarks(prompt: dict[str, Any]) -> str:
    return ", ".join(f"{text}: {number:,}" for text, number in prompt.get("remarks", {}).items()) or NOTHING
