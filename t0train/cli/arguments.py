"""Arguments that several commands take, and what the shell offers for them."""

from __future__ import annotations

from typing import Annotated

import typer


def complete_config(incomplete: str) -> list[str]:
    """Names in configs/runs/ that begin so; files are offered by the shell itself."""
    from t0train.config.load import configs_folder

    names = sorted(path.stem for path in (configs_folder() / "runs").glob("*.yaml"))
    return [name for name in names if name.startswith(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """Keys of a run that begin so, with the equals sign: `train.steps=`."""
    from t0train.config import RunConfig
    from t0train.config.reference import config_keys

    return [f"{key.name}=" for key in config_keys(RunConfig) if key.name.startswith(incomplete)]


Config = Annotated[
    str,
    typer.Argument(
        help="A run configuration: a YAML file, or a name in configs/runs/.", autocompletion=complete_config
    ),
]
RunOrConfig = Annotated[
    str, typer.Argument(help="A run folder, a YAML file, or a name in configs/runs/.", autocompletion=complete_config)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keys to change, e.g. train.steps=100.", autocompletion=complete_override),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
