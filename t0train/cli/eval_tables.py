"""What `t0train eval` prints: results and the selection of a checkpoint as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from t0train.core.console import ConsoleTable
from t0train.core.text import printable
from t0train.results.display import difference_cells, percent, prompt_remarks, selection_table, with_interval

if TYPE_CHECKING:
    from t0train.results.results_json import EvalResults, GeneratedScore, RankedScore, Selection

_BASELINES = ("chance", "majority")
_OVER_PROMPTS = ("median [quartiles]", "mean [95 %]", "min - max")


def print_selection(selection: Selection) -> None:
    """A line for every checkpoint, and the one that was selected."""
    header, rows = selection_table(selection)
    table = ConsoleTable(header, header[1:], f"Checkpoints on {selection.suite}: median over prompts in %")
    for one, (step, *figures) in zip(selection.candidates, rows, strict=True):
        table.add(f"{step} selected" if one.step == selection.step else step, *figures)
    table.show()
    for dataset, reason in selection.left_out.items():
        print(printable(f"left out: {dataset}: {reason}"))
    if selection.absent:
        print(selection.absence)
    print(f"selected: step {selection.step} ({selection.rule})")


def print_results(results: EvalResults, prompts: bool) -> None:
    """Tables of a suite's results, with their remarks and caveats; with `prompts` a line for every prompt too."""
    from t0train.mixture import leak_notes

    facts = results.model
    state = "untrained" if facts.untrained else f"step {facts.step}" if facts.step is not None else ""
    state += ", selected" if facts.selected else ""
    title = f"{facts.name}{f' ({state})' if state else ''} on {results.suite}"
    if results.tasks:
        _print_ranked(title, results)
    if results.generated:
        _print_generated(title, results)
    if results.differences:
        _print_differences(results)
    if prompts:
        _print_prompts(results)
    for probe in results.probes:
        print(printable(f"{probe.name}\n  reads: {probe.input}\n  writes: {probe.output}\n"))
    for entry in results.scored:
        for remark in prompt_remarks(entry):
            where = f"{remark.dataset} {remark.split}"
            print(printable(f"note: {where}: {remark.text}: {remark.examples} items, under {remark.prompts} prompts"))
    for caveat, datasets in results.caveats.items():
        print(printable(f"{', '.join(datasets)}: {caveat}\n"))
    for sentence in leak_notes(results.not_held_out or {}):
        print(printable(f"note: {sentence}"))
    if results.missing:
        scored = len(results.scored)
        print(f"missing: {len(results.missing)} of the suite's {len(results.missing) + scored} datasets")
        for missing in results.missing:
            print(printable(f"  {missing.dataset} {missing.split}: {missing.reason}"))


def _print_ranked(title: str, results: EvalResults) -> None:
    metrics = sorted({metric for task in results.tasks for metric in task.metrics})
    further = [f"{metric}: {figure}" for metric in metrics for figure in ("median [95 %]", *_BASELINES)]
    columns = ["records", "prompts", *_BASELINES, *_OVER_PROMPTS, *further]
    table = _table(f"{title}: accuracy in %", ["dataset"], columns)
    for task in results.tasks:
        cells = _over_prompts(task, [task.chance, task.majority])
        for metric in metrics:
            if metric in task.metrics:
                cells.append(with_interval(task.metrics[metric].median, task.metric_intervals[metric]))
                cells += [percent(task.metric_baselines[metric][baseline]) for baseline in _BASELINES]
            else:
                cells += [""] * (1 + len(_BASELINES))
        table.add(f"{task.dataset} {task.split}", *cells)
    table.show()


def _print_generated(title: str, results: EvalResults) -> None:
    columns = ["records", "prompts", "constant", *_OVER_PROMPTS, "medians of all metrics (constant answer)"]
    table = _table(f"{title}: what it writes, in %", ["dataset", "metric"], columns)
    for task in results.generated:
        medians = {name: values.median for name, values in task.metrics.items()}
        cells = _over_prompts(task, [task.metric_baselines[task.metric]["constant"]])
        figures = _beside_constant(medians, task.metric_baselines)
        table.add(f"{task.dataset} {task.split}", task.metric, *cells, figures)
    table.show()


def _over_prompts(task: RankedScore | GeneratedScore, baselines: list[float]) -> list[str]:
    """Rows and prompts, what it takes no model to get, and the columns of `_OVER_PROMPTS`."""
    return [
        str(task.records),
        str(len(task.prompts)),
        *map(percent, baselines),
        with_interval(task.median, task.iqr),
        with_interval(task.mean, task.mean_interval),
        f"{percent(task.min)} - {percent(task.max)}",
    ]


def _beside_constant(values: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> str:
    """Every metric with what a constant answer gets."""
    return ", ".join(f"{name} {percent(one)} ({percent(baselines[name]['constant'])})" for name, one in values.items())


def _print_differences(results: EvalResults) -> None:
    table = _table("Differences in points", ["difference", "of", "minus"], ["records", "median [95 %]", "mean [95 %]"])
    for found in results.differences:
        table.add(found.name, found.of, found.minus, *difference_cells(found))
    table.show()


def _print_prompts(results: EvalResults) -> None:
    columns = ["records", "gold is no choice", "chance", "majority", "score [95 %]", "remarks"]
    table = _table("Prompts", ["dataset", "prompt"], columns)
    for task in results.tasks:
        for prompt in task.prompts:
            baselines = [str(prompt.gold_not_in_choices), percent(prompt.chance), percent(prompt.majority)]
            metrics = [
                f"{name} {with_interval(value, prompt.metric_intervals[name])} "
                f"({', '.join(f'{which} {percent(of)}' for which, of in prompt.metric_baselines[name].items())})"
                for name, value in prompt.metrics.items()
            ]
            cells = [str(prompt.records), *baselines, with_interval(prompt.accuracy, prompt.interval)]
            table.add(task.dataset, prompt.name, *cells, _remarks(metrics, prompt.remarks))
        _add_left_out(table, task.dataset, task.left_out)
    for result in results.generated:
        for written in result.prompts:
            metrics = [_beside_constant(written.metrics, written.metric_baselines)]
            cells = [str(written.records), "", "", "", with_interval(written.score, written.interval)]
            table.add(result.dataset, written.name, *cells, _remarks(metrics, written.remarks))
        _add_left_out(table, result.dataset, result.left_out)
    table.show()


def _remarks(metrics: list[str], remarks: Mapping[str, int]) -> str:
    return "; ".join([*metrics, *(f"{remark}: {number}" for remark, number in remarks.items())])


def _add_left_out(table: ConsoleTable, dataset: str, left_out: Mapping[str, str]) -> None:
    for name, reason in left_out.items():
        table.add(dataset, f"{name}: {reason}", style="dim")


def _table(title: str, names: list[str], figures: list[str]) -> ConsoleTable:
    return ConsoleTable([*names, *figures], figures, title)
