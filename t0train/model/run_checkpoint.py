"""A checkpoint together with its run folder and vocabulary, checked to belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t0train.checkpoint import Manifest, read_manifest
from t0train.config import RunConfig, load_config
from t0train.config.deviations import differing_from_checkpoint, kept_keys
from t0train.core.errors import UserError
from t0train.core.run_folder import RunFolder, step_of
from t0train.data import Vocabulary, load_vocabulary
from t0train.model.checks import check_vocabulary
from t0train.model.weight_files import find_weights


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint and its run.

    Attributes:
        run: run folder.
        config: of the run.
        path: the checkpoint.
        step: of the checkpoint.
        vocabulary: the one that the run was trained with.
    """

    run: RunFolder
    config: RunConfig
    path: Path
    step: int
    vocabulary: Vocabulary


def open_run_checkpoint(
    source: str | Path, step: int | None = None, config: RunConfig | None = None
) -> RunCheckpoint | None:
    """A run's checkpoint, its configuration and its vocabulary, checked to belong together; weights are not read.

    Args:
        source: run folder (its selected checkpoint, else the newest), or a checkpoint in one.
        step: of the checkpoint; see `find_weights`.
        config: of the run, if it was read already.

    Returns:
        None if `source` is neither of these.

    Raises:
        UserError: the checkpoint is of another run, the configuration was changed since in a way that matters, or the
            vocabulary is not the one that the run was trained with.
    """
    run = RunFolder.of(source)
    if run is None:
        return None
    config = config or load_config(run.config)
    path = find_weights(source, step)
    manifest = read_manifest(path, check_files=False)
    _check_run(run, config, path, manifest)
    vocabulary = load_vocabulary(config.data.vocabulary)
    check_vocabulary(path, vocabulary)
    return RunCheckpoint(run, config, path, manifest.step, vocabulary)


def run_config_of(source: str | Path) -> RunConfig | None:
    """Configuration of the run that `source` is, or is a checkpoint of; None for anything else."""
    run = RunFolder.of(source)
    return load_config(run.config) if run else None


def _check_run(run: RunFolder, config: RunConfig, checkpoint: Path, manifest: Manifest) -> None:
    if step_of(checkpoint) != manifest.step:
        raise UserError(
            f"{checkpoint} is the checkpoint of step {manifest.step:,}, as its manifest says; give it back its name."
        )
    differing = differing_from_checkpoint(manifest.identity, config)
    if any(key.startswith("mixture.") for key in differing):
        forced = _forced_keys(run)  # an earlier checkpoint's mixture may be another one
        differing = [key for key in differing if key not in forced]
    if differing:
        now = kept_keys(config)
        raise UserError(
            f"{checkpoint} and {run.config} are not of one run:\n{_lines(differing, manifest.identity, now)}\n"
            "Put the run's own checkpoints or configuration back."
        )


def _forced_keys(run: RunFolder) -> set[str]:
    """Keys that --force-new-mixture changed on the way to any of a run's checkpoints."""
    manifests = [read_manifest(path, check_files=False) for path in run.list_complete()]
    return {str(change.get("key")) for manifest in manifests for change in manifest.changes}


def _lines(keys: Sequence[str], then: dict[str, Any], now: dict[str, Any]) -> str:
    shown = [f"  {key}: {then.get(key)!r} in the checkpoint, {now.get(key)!r} in the configuration" for key in keys[:5]]
    return "\n".join(shown + ([f"  and {len(keys) - 5} further keys"] if len(keys) > 5 else []))
