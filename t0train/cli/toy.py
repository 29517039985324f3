"""`t0train toy`: write the toy P3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="A new folder for records, templates, catalogue and vocabulary.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the records.")] = 0,
) -> None:
    """Write the toy P3: ten small datasets to train on, four held out, their templates and a vocabulary.

    Example: `t0train toy runs/toy/p3`
    """
    from t0train.toy import DATASETS, build_toy

    written = build_toy(folder, seed)
    held_out = [dataset.name for dataset in DATASETS if dataset.held_out]
    typer.echo(
        f"{folder}: {len(DATASETS) - len(held_out)} datasets to train on, {len(held_out)} held out "
        f"({', '.join(held_out)}){'' if written else '; it was there already'}"
    )
