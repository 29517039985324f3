"""`t0train eval`: score a model on a suite, over many prompts, by rank classification or by what it generates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from t0train.core.console import print_json


def command(
    model: Annotated[str, typer.Argument(help="A run folder, a checkpoint of a run, an exported folder, or a hub id.")],
    suite: Annotated[
        str, typer.Option(help="A name in configs/evals/, or a YAML file; default: the run's own suite.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="Folder with records, or `hub`; default: the suite's or the run's source.")
    ] = "",
    store: Annotated[str, typer.Option(help="Folder of the token store; default: the run's.")] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Score at most this many records of each dataset, the same for every model."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results.json and Parquet files.",
            show_default="RUN/eval/SUITE; of an older checkpoint, step-XXXXXXXX in it",
        ),
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Checkpoint of the run; default: the selected one, else the newest.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Score the run's model as it was before step 1.")
    ] = False,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes that share the work, each with its own copy of the model.")
    ] = 1,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="Compare the run's checkpoints and select the best one.")
    ] = False,
    prompts: Annotated[bool, typer.Option("--prompts", help="Print a line for every prompt too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Score a model on every prompt of every dataset of a suite; print accuracy, chance and majority class.

    The score of a choice is the sum of the log-probabilities of its tokens. Quartiles are over prompts; intervals are
    95 % bootstraps over records. Datasets that are not available are listed. Predictions are kept prompt by prompt in
    OUT/predictions: an evaluation that was killed continues when the command is run again.

    --all-checkpoints scores every checkpoint on those datasets of the suite that the run is trained on, and selects the
    one with the highest mean over datasets of the median over prompts: eval, generate and export use it from then on.

    Example: t0train eval runs/toy/run --prompts
    """
    from t0train.cli.eval_tables import print_results, print_selection
    from t0train.core.errors import UserError
    from t0train.evals import EvalConfig, ModelReference, evaluate_into, select_checkpoint
    from t0train.model import find_weights

    if step is not None:
        if untrained or all_checkpoints:
            raise UserError("--step cannot be combined with --untrained or --all-checkpoints.")
        model = str(find_weights(model, step))
    reference = ModelReference.of(model, untrained)
    config = EvalConfig.for_model(reference, suite, source=data, store=store, limit=limit, processes=nproc)
    if all_checkpoints:
        if untrained or out or prompts:
            raise UserError("--all-checkpoints cannot be combined with --untrained, --out or --prompts.")
        selection = select_checkpoint(reference, config)
        print_json(selection.as_json()) if as_json else print_selection(selection)
        return
    folder = out or reference.results_folder(config.suite.name)
    results = evaluate_into(folder, reference, config)
    if as_json:
        print_json(results.as_json())
        return
    print_results(results, prompts)
    print("results: " + ", ".join(str(folder / name) for name in ("results.json", *results.files)))
