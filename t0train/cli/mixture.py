"""`t0train mixture`: list the mixtures, show one as a table, check that a run's mixture is complete."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t0train.cli.arguments import Json, Overrides, RunOrConfig
from t0train.core.console import ConsoleTable, print_json, say, show_records
from t0train.core.errors import UserError

if TYPE_CHECKING:
    from t0train.config import RunConfig
    from t0train.data import Counts, TaskTokens
    from t0train.mixture import DatasetSummary, Leak, Mixture, SourceReport, TaskSummary
    from t0train.results import OverlapReport

app = typer.Typer(help="List, show and check mixtures of training tasks.", no_args_is_help=True)


_FORMATS = {"probability": ".3%", "mean_inputs": ",.2f", "mean_targets": ",.2f", "epochs": ",.2f"}


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the mixtures that come with t0train.

    Example: t0train mixture list
    """
    from t0train.config.load import configs_folder
    from t0train.config.schema import MixtureConfig
    from t0train.mixture import load_mixture
    from t0train.mixture.definition import read_definition

    entries: list[dict[str, Any]] = []
    for path in sorted((configs_folder() / "mixtures").glob("*.yaml")):
        definition = read_definition(MixtureConfig(name=path.stem))
        counts: dict[str, int | None] = {"datasets": None, "tasks": None}
        if "catalogue" not in definition.stages:  # that one depends on the user's file
            mixture = load_mixture(path.stem)
            counts = {"datasets": len(mixture.datasets), "tasks": len(mixture.tasks)}
        entries.append({"name": path.stem, **counts, "description": definition.description})
    if as_json:
        print_json(entries)
    else:
        show_records(entries)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A mixture: a name in configs/mixtures/, or a file of yours.")],
    overrides: Overrides = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="One row per task, not per dataset.")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Give the expected epochs of a run of so many steps.")
    ] = None,
    examples_per_row: Annotated[
        float | None, typer.Option(min=0.001, help="Mean examples of a packed row, for the expected epochs.")
    ] = None,
) -> None:
    """Print a mixture: every dataset (or task) with its rate and the probability that an example is drawn from it.

    Records are counted where data.source is a folder; mean tokens are given for tasks that are prepared.

    Example: t0train mixture show t0 mixture.prompts=original --csv
    """
    from t0train.config import load_config
    from t0train.mixture import build_mixture, by_dataset, check_sources

    config = load_config("t0", [f"mixture.name={name}", *(overrides or ())])
    mixture = build_mixture(config.mixture, config.data)
    per_step = _examples_per_step(config, examples_per_row) if steps else None
    report = check_sources(mixture, config.data)
    _remark(*mixture.remarks, *report.remarks)
    tasks_table = mixture.table(steps, per_step, report.records, _mean_tokens(_stored_tasks(config, mixture)))
    shown: Sequence[TaskSummary | DatasetSummary] = tasks_table if tasks else by_dataset(tasks_table)
    if as_json:
        datasets = [asdict(row) for row in by_dataset(tasks_table)]
        print_json({**_summary(mixture), "datasets": datasets, "tasks": [asdict(row) for row in tasks_table]})
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(shown[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in shown)
    else:
        show_records([asdict(row) for row in shown], _FORMATS)
        print(_describe_mixture(mixture))


@app.command()
def check(
    config: RunOrConfig,
    overrides: Overrides = None,
    suite: Annotated[str, typer.Option(help="Suite to compare with; default: the run's own.")] = "",
    ngrams: Annotated[
        bool, typer.Option("--ngrams", help="Compare the texts, too: n-grams of scored and of training records.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that the datasets of a run's mixture are there, fit its templates, and are not what its suite evaluates.

    Exit code 0 when all is well, 2 with the list of what is missing and its share of the mixture's weight, or of what
    the suite evaluates and the mixture trains on (leaks.held_out), or of tasks whose targets teach nothing, as far as
    they are prepared (data.allow_empty_targets). Shared texts are reported and stop nothing. For a run folder they are
    also kept in RUN/eval/SUITE/leaks.json, which reports and model cards show.

    Example: t0train mixture check t0 data.source=/data/t0 --suite t0_heldout --ngrams
    """
    from t0train.config import load_run, load_suite
    from t0train.core.console import progress
    from t0train.core.run_folder import RunFolder
    from t0train.data import refuse_faults, remarks
    from t0train.mixture import build_mixture, by_dataset, check_sources, find_overlaps, leaks_of_run, write_overlaps
    from t0train.mixture.contamination import refuse_leaks

    folder = RunFolder(Path(config).expanduser())
    run = load_run(config, overrides or ())
    mixture = build_mixture(run.mixture, run.data)
    report = check_sources(mixture, run.data)
    chosen = load_suite(suite or run.suite) if suite or run.suite else None
    leaks = leaks_of_run(mixture, chosen, run) if chosen else []
    if ngrams and not chosen:
        raise UserError("--ngrams needs a suite to compare with: --suite NAME, or `suite` in the run.")
    overlaps = None
    if ngrams and chosen:
        with progress("compare", len(mixture.datasets), "datasets") as advance:
            overlaps = find_overlaps(mixture, chosen, run, advance)
        if folder.exists():
            _remark(f"written to {write_overlaps(overlaps, folder.results(chosen.name))}, for the report")
    counts = {task: tokens.counts for task, tokens in _stored_tasks(run, mixture).items()}
    if as_json:
        print_json(_report_document(report, leaks, overlaps, counts))
    else:
        show_records([asdict(row) for row in by_dataset(mixture.table(records=report.records))], _FORMATS)
        _remark(*mixture.remarks, *report.remarks, *remarks(counts), *map(str, leaks))
        if overlaps:
            _print_overlaps(overlaps)
    report.require()
    if not run.data.allow_empty_targets:
        refuse_faults(counts)
    refuse_leaks(leaks, run.leaks.held_out)
    if not as_json:
        all_of_it = f"{len(mixture.dropped)} datasets dropped, the others" if mixture.dropped else "all"
        found = (
            f"{all_of_it} found in {report.source}"
            if report.records
            else "datasets are fetched from the hub when needed"
        )
        print(f"{_describe_mixture(mixture)}; {found}")


def _summary(mixture: Mixture) -> dict[str, Any]:
    return {
        "name": mixture.name,
        "description": mixture.description,
        "hash": mixture.hash,
        "rates_from": mixture.rates_from,
        "rate_sum": float(mixture.rates.sum()),
        "remarks": mixture.remarks,
    }


def _describe_mixture(mixture: Mixture) -> str:
    return (
        f"{mixture.name}: {len(mixture.tasks)} tasks of {len(mixture.datasets)} datasets,"
        f" sum of rates {mixture.rates.sum():,.0f}, hash {mixture.hash}"
    )


def _report_document(
    report: SourceReport, leaks: list[Leak], overlaps: OverlapReport | None, counts: dict[str, Counts]
) -> dict[str, Any]:
    weights = report.mixture.weights()
    missing = [
        {
            "dataset": table.dataset.key,
            "split": table.split,
            "weight": weights[table.dataset.key],
            "reason": table.reason,
        }
        for table in report.missing
    ]
    return {
        **_summary(report.mixture),
        "source": report.source,
        "records": report.records,
        "missing": missing,
        "lost_weight": report.lost,
        "problems": report.problems,
        "leaks": [{**asdict(leak), "sentence": str(leak)} for leak in leaks],
        "overlaps": overlaps.as_json() if overlaps else None,
        "remarks": [*report.mixture.remarks, *report.remarks],
        "examples": {task: list(numbers.sentences().values()) for task, numbers in counts.items()},
    }


def _print_overlaps(report: OverlapReport) -> None:
    """One line per dataset of the suite, then the records that share most, then what could not be compared."""
    from t0train.results.display import overlap_counts, overlap_sources

    counts = ["records", "too short", f"share a {report.ngram}-gram", f"share {report.threshold:.0%} of them"]
    table = ConsoleTable(["scored", *counts, "training datasets"], counts, is_plain=True, keeps_numbers=True)
    for found in report.overlaps:
        table.add(f"{found.dataset} {found.split}", *overlap_counts(found), overlap_sources(found, most=5))
    if report.overlaps:
        table.show()
    for found in report.overlaps:
        for text in found.examples:
            print(
                f"{found.dataset} record {text.record}, {text.share:.0%} of its {report.ngram}-grams, e.g. of "
                f"{text.trained_dataset} record {text.trained_record}: {text.words}"
            )
    _remark(*(f"not compared: {key}: {reason}" for key, reason in report.not_compared.items()))


def _examples_per_step(config: RunConfig, examples_per_row: float | None) -> float:
    batch = config.train.batch
    if batch.examples is not None:
        return batch.examples
    if examples_per_row is None or batch.rows is None:
        raise UserError(
            f"--steps needs the examples of a step, but a step is {batch.rows:,} packed rows: give --examples-per-row"
            " (`t0train data inspect` prints it), or train.batch.examples=N."
        )
    return batch.rows * examples_per_row


def _stored_tasks(config: RunConfig, mixture: Mixture) -> dict[str, TaskTokens]:
    """What the token store holds of a mixture, by task name; asks no network, so the hub's revision is open."""
    from t0train.data import load_vocabulary, open_folder, store_folder
    from t0train.tasks import open_table, parse_split, training_split

    store = store_folder(config.data.store)
    local = Path(config.data.vocabulary).exists()
    vocabulary = {"vocabulary": load_vocabulary(config.data.vocabulary).fingerprint} if local else {}
    stored: dict[str, TaskTokens] = {}
    for task in mixture.tasks:
        folders = sorted((store / task.name).glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        split = training_split(task.dataset, config.data.splits)
        wanted = {"dataset": task.dataset.key, "split": str(parse_split(split)), "template": task.template.fingerprint}
        if folders and config.data.source != "hub":
            with suppress(UserError):  # its records are gone, as `check_sources` says
                wanted["source"] = open_table(task.dataset, split, config.data.source).revision
        for path in folders:  # the newest one stays
            with suppress(UserError):  # damaged, or of another version: only what is there is listed
                tokens = open_folder(path.parent, verify=False)
                if (wanted | vocabulary).items() <= tokens.manifest["key_parts"].items():
                    stored[task.name] = tokens
    return stored


def _mean_tokens(stored: dict[str, TaskTokens]) -> dict[str, tuple[float, float]]:
    """Mean input and target tokens by task."""
    return {
        task: (tokens.manifest["input_tokens"] / tokens.num_rows, tokens.manifest["target_tokens"] / tokens.num_rows)
        for task, tokens in stored.items()
        if tokens.num_rows
    }


def _remark(*remarks: str) -> None:
    for remark in remarks:
        say(f"note: {remark}")
