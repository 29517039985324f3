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
        given_up = {run.name: _not_held_out(run, suite) for run in runs}
        held_out = ("held out",) if any(given_up.values()) else ()
        of_suite = [line for line in lines if line.suite == suite]
        untrained = ("untrained",) if any(line.untrained is not None for line in of_suite) else ()
        rows = [
            (
                line.dataset,
                line.split,
                *([line.run] if len(runs) > 1 else []),
                *([_held_out(given_up[line.run].get(line.dataset))] if held_out else []),
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
        header = ("dataset", "split", *model, *held_out, "prompts", "rows", "median", "mean", "chance", "majority")
        names = 2 + len(model) + len(held_out)
        parts.append(Table((*header, *untrained), rows, title=f"Suite {suite}, accuracy in %", names=names))
        parts += _further_metrics(runs, suite)
        parts.append(Sentences([_scored(run, suite) for run in runs if suite in run.results]))
        if apart := [sentence for run in runs for sentence in _other_rows(run, suite)]:
            parts.append(Sentences(apart))
        if held_out:
            said = [f"{name}: {one['sentence']}." for name, found in given_up.items() for one in found.values()]
            parts.append(Sentences(said))
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


def _not_held_out(run: Run, suite: str) -> dict[str, dict[str, str]]:
    """Kind and sentence by dataset that the run's training shares something with."""
    return run.results.get(suite, {}).get("not_held_out") or {}


def _held_out(found: dict[str, str] | None) -> str:
    if found is None:
        return "yes"
    return "dataset, not family" if found["kind"] == "family" else "no"


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
    return f"{run.name}: {model} was scored" + (f", on at most {limit:,} rows of each dataset." if limit else ".")


def _other_rows(run: Run, suite: str) -> Iterator[str]:
    """Say so where the untrained model was evaluated on other rows, and is left out therefore."""
    apart = [
        entry["dataset"]
        for entry in datasets(run.results.get(suite)).values()
        if untrained_entry(run, suite, entry) and not before_training(run, suite, entry)
    ]
    if apart:
        yield (
            f"{run.name}, untrained: evaluated on other rows of {', '.join(apart)}, and left out there; evaluate again "
            "with --untrained."
        )


def panels(runs: Sequence[Run], suite: str) -> list[figures.Panel]:
    """The boxes of each dataset of a suite: every run, and before it its untrained model where rows are the same."""
    drawn = []
    for dataset, split in evaluated(runs, suite):
        boxes, baseline = [], None
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
                boxes.append(figures.Box(name, figures.colour(index), is_trained, accuracies))
                baseline = baseline or entry
        assert baseline is not None
        kinds = {found[dataset]["kind"] for run in runs if dataset in (found := _not_held_out(run, suite))}
        remark = " (not held out)" if kinds - {"family"} else " (family trained on)" if kinds else ""
        drawn.append(figures.Panel(dataset + remark, baseline["chance"], baseline["majority"], boxes))
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
