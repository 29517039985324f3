"""`t0train data`: make the token store, check it, look into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t0train.cli.arguments import Config, Json, Overrides, complete_config
from t0train.core.console import print_json, say
from t0train.core.errors import UserError

if TYPE_CHECKING:
    from t0train.config import RunConfig

app = typer.Typer(help="Prepare, verify and inspect token stores.", no_args_is_help=True)


@app.command()
def prepare(
    config: Config,
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: as many as cores.")] = None,
    as_json: Json = False,
) -> None:
    """Render and tokenise every task of a run's mixture into the token store.

    It can be stopped and started again at any time, and does nothing where all is done.

    Example: t0train data prepare real_small data.source=rows data.vocabulary=spiece.model
    """
    from t0train.config import load_config
    from t0train.data import prepare, remarks

    run = load_config(config, overrides or ())
    prepared = prepare(run, workers)
    for task in prepared:
        if task.rows == 0:
            say(f"remark: {task.task} has no example: its template drops every row of {task.split}")
    for remark in remarks({task.task: task.counts for task in prepared}):
        say(f"remark: {remark}")
    if as_json:
        rows = [
            {
                **vars(task),
                "folder": str(task.folder),
                "counts": vars(task.counts),
                "remarks": list(task.counts.sentences().values()),
            }
            for task in prepared
        ]
        print_json(rows)
        return
    made = sum(task.made for task in prepared)
    kept, source = sum(task.rows for task in prepared), sum(task.source_rows for task in prepared)
    print(
        f"{len(prepared)} tasks in {prepared[0].folder.parents[1]}: {made} made, {len(prepared) - made} already there."
    )
    print(f"{kept:,} examples; {source - kept:,} of {source:,} were dropped by their templates.")


@app.command()
def verify(
    target: Annotated[
        str,
        typer.Argument(
            help="A run configuration (file or name), or the folder of a token store.", autocompletion=complete_config
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Compare every file of a token store with its checksum. Exit code 2 if one is damaged, or lacking for the run.

    Example: t0train data verify real_small data.source=rows data.vocabulary=spiece.model
    """
    from t0train.config import load_config
    from t0train.data import TaskTokens, open_loader, verify_store

    if not Path(target).is_dir():
        loader = open_loader(_tolerant(load_config(target, overrides or ())))
        print(f"{target}: {len(loader.task_names)} tasks, {sum(loader.task_sizes):,} examples, all checksums match.")
        return
    results = list(verify_store(Path(target)))
    if damaged := [str(result) for result in results if isinstance(result, UserError)]:
        raise UserError(f"{len(damaged)} of {len(results)} folders are damaged:\n  " + "\n  ".join(damaged))
    examples = sum(result.num_rows for result in results if isinstance(result, TaskTokens))
    print(f"{target}: {len(results)} folders, {examples:,} examples, all checksums match.")


@app.command()
def inspect(
    config: Config,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 3,
    histogram: Annotated[Path | None, typer.Option(help="Draw the lengths of examples into this file (png).")] = None,
    as_json: Json = False,
) -> None:
    """Show packed rows as text, segment by segment, with lengths and fill.

    Example: t0train data inspect toy --rows 2 --histogram lengths.png
    """
    from t0train.config import load_config
    from t0train.data import LoaderState, open_loader
    from t0train.data.inspection import describe_rows, draw_lengths

    run = load_config(config, overrides or ())
    loader = open_loader(_tolerant(run), verify=False)
    statistics = loader.statistics()
    described = describe_rows(loader, loader.take(LoaderState(), rows)[0]) if rows else []
    if histogram is not None:
        draw_lengths(statistics, run.data.max_inputs, run.data.max_targets, histogram)
    summary = statistics.summary()
    if as_json:
        document = {"summary": summary, "remarks": loader.mixture.remarks, "rows": described}
        print_json(document)
        return
    for remark in loader.mixture.remarks:
        say(f"remark: {remark}")
    for row in described:
        _print_row(row, run.data.max_inputs, run.data.max_targets)
    print(
        "{packing}, over {examples:,} examples: {examples_per_row:.2f} examples a row;"
        " fill {fill_inputs:.1%} of inputs, {fill_targets:.1%} of targets;"
        " mean {mean_input_tokens:.0f} + {mean_target_tokens:.0f} tokens;"
        " trimmed {trimmed_inputs:.1%} of inputs, {trimmed_targets:.1%} of targets.".format(
            packing=run.data.packing, **summary
        )
    )


def _tolerant(run: RunConfig) -> RunConfig:
    """The run without the refusal of targets that teach nothing: who looks into a store wants to see them."""
    return run.model_copy(update={"data": run.data.model_copy(update={"allow_empty_targets": True})})


def _print_row(row: dict[str, Any], max_inputs: int, max_targets: int) -> None:
    print(
        f"window {row['window']}, row {row['row']}: {len(row['segments'])} examples,"
        f" {row['input_tokens']}/{max_inputs} input and {row['target_tokens']}/{max_targets} target tokens"
    )
    for segment in row["segments"]:
        print(f"  [{segment['segment']}] {segment['task']}, example {segment['example']}")
        print(f"      input:  {segment['input']}")
        print(f"      target: {segment['target']}")
    print()
