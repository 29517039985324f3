"""`t0train report`: tables and figures on one run, or a comparison of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from t0train.core.console import print_json


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report.",
            show_default="RUN/report; for several, report/ next to the first",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths and the accuracies as JSON.")] = False,
) -> None:
    """Write report.md and a self-contained report.html: accuracy, curves, tasks drawn, packing, deviations.

    Example: t0train report runs/toy/run
    """
    from t0train.report import build_report

    page, headlines = build_report(runs, out)
    if as_json:
        accuracy = [line._asdict() for line in headlines]
        print_json({"html": str(page), "markdown": str(page.with_suffix(".md")), "accuracy": accuracy})
    else:
        print(page)
