"""What a run folder holds, read once: configuration, deviations, events, evaluation results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t0train.config import RunConfig, load_config, run_identity
from t0train.config.load import read_unchecked
from t0train.config.suite import OVERLAPS
from t0train.core.errors import UserError
from t0train.core.events import read_events
from t0train.core.hashing import content_hash, file_sha256
from t0train.core.run_folder import MANIFEST, UNTRAINED, RunFolder, step_name
from t0train.report.shapes import check_event, check_file


@dataclass(frozen=True)
class Run:
    """One run folder in memory."""

    name: str
    folder: Path
    config: dict[str, Any]
    deviations: list[dict[str, Any]] | None  # None: the folder has no deviations.json
    events: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]  # by suite
    untrained: dict[str, dict[str, Any]]  # by suite, without the ending
    selections: dict[str, dict[str, Any]]  # by suite: comparisons of checkpoints
    overlaps: dict[str, dict[str, Any]]  # by suite: what its texts share with the training rows

    @property
    def config_hash(self) -> str:
        """Content hash of the resolved configuration."""
        return content_hash(self.config)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind, in the order in which they were written."""
        return [event for event in self.events if event["kind"] == kind]


def read_run(folder: Path, step: int | None = None) -> Run:
    """Read a run folder; what has not been written yet (no step, no evaluation) is simply empty.

    Args:
        folder: run folder.
        step: take the results of this checkpoint where a suite has some of it beside those of the final one.

    Raises:
        UserError: the folder is no run folder, one of its files is damaged, or results in it are of another run.
    """
    run = RunFolder.require(folder)
    resolved = run.config
    config = read_unchecked(RunConfig, resolved)
    check_file(config, resolved)
    deviations, log = run.deviations, run.events
    scores = {path.parent.name: _read_results(folder, path) for path in sorted(run.evaluations.glob("*/results.json"))}
    if step is not None:
        of_step = sorted(run.evaluations.glob(f"*/{step_name(step)}/results.json"))
        for path in of_step:
            suite = path.parent.parent.name
            if suite not in scores or scores[suite]["model"].get("step") != step:
                scores[suite] = _read_results(folder, path)
    return Run(
        name=str(config.get("name") or folder.resolve().name),
        folder=folder,
        config=config,
        deviations=_read_json(deviations) if deviations.is_file() else None,
        events=_read_log(log) if log.is_file() else [],
        results={suite: found for suite, found in scores.items() if not suite.endswith(UNTRAINED)},
        untrained={
            suite.removesuffix(UNTRAINED): found for suite, found in scores.items() if suite.endswith(UNTRAINED)
        },
        selections={path.parent.name: _read_json(path) for path in sorted(run.evaluations.glob("*/selection.json"))},
        overlaps={path.parent.name: _read_json(path) for path in sorted(run.evaluations.glob(f"*/{OVERLAPS}"))},
    )


def read_runs(folders: list[Path]) -> list[Run]:
    """Read several run folders; runs that share a name are told apart by their folders.

    Raises:
        UserError: as `read_run`, or one folder twice.
    """
    known = [folder.resolve() for folder in folders]
    for place, folder in enumerate(known):
        if folder in known[:place]:
            raise UserError(f"{folders[place]} is given twice; a run is compared with others: name each of them once.")
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else Run(**{**run.__dict__, "name": f"{run.name} ({run.folder})"})
        for run in runs
    ]


def _read_results(run: Path, path: Path) -> dict[str, Any]:
    """A results.json, if it is of this run.

    Raises:
        UserError: damaged, of another run, or of another checkpoint than the one that has its step now.
    """
    found: dict[str, Any] = _read_json(path)
    model = found["model"]
    if model.get("run") and model["run"] != run_identity(load_config(RunFolder(run).config)):
        raise UserError(
            f"{path} holds results of another run ({model.get('name')!r}, of another recipe or seed than {run}); move "
            "them out of the run folder, or evaluate again with `t0train eval`."
        )
    manifest = RunFolder(run).checkpoint(model.get("step") or 0) / MANIFEST
    if model.get("checkpoint") and manifest.is_file() and file_sha256(manifest) != model["checkpoint"]:
        raise UserError(
            f"{path} holds results of another checkpoint of step {model['step']:,} than the one in {run}; evaluate "
            "again with `t0train eval`, or remove them."
        )
    return found


def _read_json(path: Path) -> Any:
    try:
        return check_file(json.loads(path.read_text(encoding="utf-8")), path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _read_log(path: Path) -> list[dict[str, Any]]:
    try:
        return [check_event(event, path, line) for line, event in enumerate(read_events(path), 1)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
