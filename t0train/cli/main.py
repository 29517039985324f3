"""Entry point of the `t0train` command: collects the commands, prints user errors, sets the exit code."""

from __future__ import annotations

import json
import os
import time
import traceback
from contextlib import suppress
from pathlib import Path

import typer

from t0train.cli import config, data, estimate, eval, export, generate, mixture, prompts, report, toy, train
from t0train.core.console import say
from t0train.core.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    LostContactError,
    PreemptedError,
    QuietError,
    UserError,
)
from t0train.core.processes import leave
from t0train.core.version import t0train_version

app = typer.Typer(
    name="t0train",
    help="Train T0: T5 made to solve unseen tasks by multitask fine-tuning on natural-language prompts.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(t0train_version())
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    local_rank: int | None = typer.Option(None, "--local_rank", "--local-rank", hidden=True),
) -> None:
    """Train T0: T5 made to solve unseen tasks by multitask fine-tuning on natural-language prompts."""
    if debug:
        os.environ["T0TRAIN_DEBUG"] = "1"
    if local_rank is not None:  # as `deepspeed` and `torch.distributed.launch` start processes
        os.environ.setdefault("LOCAL_RANK", str(local_rank))


for _name, _group in (
    ("config", config.app),
    ("data", data.app),
    ("mixture", mixture.app),
    ("prompts", prompts.app),
):
    app.add_typer(_group, name=_name)
for _name, _command in (
    ("toy", toy.command),
    ("estimate", estimate.command),
    ("train", train.command),
    ("eval", eval.command),
    ("generate", generate.command),
    ("export", export.command),
    ("report", report.command),
):
    app.command(_name)(_command)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 bad input, 85 stopped by a signal with a checkpoint written, 130 ended by Ctrl-C.
    """
    leave(_run())


def _run() -> int:
    """Run the command line; returns its exit code."""
    try:
        app()
        return 0
    except SystemExit as end:  # how typer ends every command, with 130 after Ctrl-C
        code = end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
        if code == EXIT_INTERRUPTED:
            say("interrupted: Ctrl-C ended the command before it was done")
        return code
    except UserError as error:
        if os.environ.get("T0TRAIN_DEBUG"):
            traceback.print_exc()
            _write_reason_for_torchrun(f"error: {error}")
        else:
            _report(f"error: {error}")
        return EXIT_BAD_INPUT
    except PreemptedError as stop:
        _report(f"stopped: {stop}")
        return EXIT_PREEMPTED
    except LostContactError as error:
        _report(f"error: {error}")
    except QuietError as end:
        _write_reason_for_torchrun(str(end))
        return end.code
    except Exception as error:
        traceback.print_exc()
        _write_reason_for_torchrun(f"{type(error).__name__}: {error}")
    return EXIT_FAILED


def _report(reason: str) -> None:
    """Print why the command ends; torchrun repeats it at the end of its own report."""
    say(reason)
    _write_reason_for_torchrun(reason)


def _write_reason_for_torchrun(reason: str) -> None:
    """Write the file from which torchrun takes the reason of a failure.

    After a process has failed torchrun prints a traceback of its own, whatever the process does, and then the reasons
    of all processes; without the file it has none.
    """
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": {"message": reason, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with suppress(OSError):
            Path(file).write_text(json.dumps(message), encoding="utf-8")
