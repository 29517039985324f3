"""What the shell offers behind `t0train COMMAND`: names of shipped configurations, and keys to override."""

from __future__ import annotations


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
