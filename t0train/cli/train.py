"""`t0train train`: train a run, or continue it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t0train.cli.arguments import Config, Overrides
from t0train.core.console import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from t0train.config import RunConfig, SuiteConfig
    from t0train.training import RunResult


def command(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[
        str,
        typer.Option(
            help="auto: continue from the run folder's newest whole checkpoint, if there is one; never: refuse a "
            "folder that has checkpoints; or the path of a run folder or checkpoint that must exist."
        ),
    ] = "auto",
    nproc: Annotated[
        int | None,
        typer.Option(
            help="Start this many processes on this machine (one per GPU); without it, as torchrun or srun did."
        ),
    ] = None,
    force_new_mixture: Annotated[
        bool, typer.Option("--force-new-mixture", help="Continue a run with another mixture; deviations.json says so.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model as a run configuration says.

    Everything goes into the run folder: config.resolved.yaml, deviations.json, events.jsonl, checkpoints/. On SIGTERM
    or SIGUSR1 a checkpoint is written at the next step boundary and the exit code is 85; run the same command again to
    continue.

    Several processes share the work (train.strategy); whatever their number, the run is the same, and it may be
    continued with another number or strategy. Across machines start them with torchrun or srun.

    With train.select all regular checkpoints stay and are compared at the end, as by `t0train eval RUN
    --all-checkpoints`.

    Example: t0train train toy train.steps=100
    """
    from t0train.config import load_config
    from t0train.core.processes import stop_on_signals

    loaded = load_config(config, overrides or [])
    flags = [*(["--force-new-mixture"] if force_new_mixture else []), *(["--json"] if as_json else [])]
    with stop_on_signals():  # already here, because torch takes seconds to import
        if nproc is not None:
            arguments = ["train", config, *(overrides or []), "--resume", resume, *flags]
            raise typer.Exit(_launch(loaded, nproc, arguments))
        result, selection = _train(loaded, resume, force_new_mixture)
    if result is None:
        return
    selected = _select(result.folder, selection) if selection else None
    if as_json:
        print(json.dumps({**asdict(result), "selected": selected}, default=str))
        return
    print(
        f"{result.steps} steps done; last loss {result.loss:.4f}, cross-entropy {result.cross_entropy:.4f} a token\n"
        f"checkpoint: {result.checkpoint}" + (f"\nselected: step {selected}" if selection else "")
    )


def _launch(config: RunConfig, processes: int, arguments: Sequence[str]) -> int:
    from t0train.config.resolve import resolve_replicas, resolve_strategy

    if resolve_strategy(config.train, processes) == "hsdp":
        resolve_replicas(config.train, processes, processes)

    from t0train.distributed.launch import launch

    return launch(processes, arguments)


def _train(config: RunConfig, resume: str, force_new_mixture: bool) -> tuple[RunResult | None, SuiteConfig | None]:
    """Train as one of the run's processes; returns the result in the first one, and the suite that is to select."""
    from t0train.config import config_remarks, deviations, load_suite

    selection = load_suite(config.train.select) if config.train.select else None

    from t0train.distributed import find_place  # after the checks: torch takes seconds to import
    from t0train.training import train

    is_first = find_place().rank == 0
    if is_first:
        say(f"{len(deviations(config))} keys differ from T0's recipe; deviations.json says which")
        for remark in config_remarks(config):
            say(f"remark: {remark}")
    if selection:
        from t0train.evals.checkpoint_selection import training_part

        training_part(selection, config)  # refuses a suite that cannot select before the run, not after it
    result = train(config, resume, force_new_mixture=force_new_mixture)
    return (result if is_first else None), selection


def _select(run: Path, suite: SuiteConfig) -> int:
    """Compare the run's checkpoints; returns the step of the best one."""
    from t0train.evals import EvalConfig, ModelReference, select_checkpoint

    model = ModelReference.of(run)
    selection = select_checkpoint(model, EvalConfig.for_model(model, suite))
    if selection.absent:
        say(selection.absence)
    return selection.step
