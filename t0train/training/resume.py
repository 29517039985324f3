"""Which checkpoint a run continues from, and whether it may: a continued run must be the run that was begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t0train.checkpoint import Manifest, read_manifest
from t0train.config import RunConfig
from t0train.config.deviations import MIXTURE, STORE, VOCABULARY, Deviation, differing_keys, kept_keys
from t0train.core.errors import UserError
from t0train.core.run_folder import MANIFEST, RunFolder, list_checkpoints, similar_folders
from t0train.data import PackedLoader

_MIXTURE = ("mixture", "token store")  # of keys that --force-new-mixture lets differ


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint, and the later or damaged ones of the run folder that it takes the place of."""

    path: Path
    manifest: Manifest
    superseded: tuple[Path, ...]

    def is_in(self, folder: RunFolder) -> bool:
        """Whether it is a checkpoint of this run folder."""
        return self.path.resolve().parent == folder.checkpoints.resolve()


def identity(config: RunConfig, loader: PackedLoader) -> dict[str, Any]:
    """What a run must keep when it is continued: its recipe, seed, mixture, vocabulary and tokens, by key."""
    return {
        **kept_keys(config),
        MIXTURE: loader.mixture.hash,
        VOCABULARY: loader.vocabulary.fingerprint,
        STORE: loader.fingerprint,
    }


def find_resume_point(resume: str, folder: RunFolder, notify: Callable[[str], None]) -> ResumePoint | None:
    """The checkpoint to continue from; None for a new run.

    Args:
        resume: `auto` (the newest whole checkpoint of the run folder, if it has any), `never`, or the path of a run
            folder, a `checkpoints` folder or a checkpoint, which must exist.
        folder: the run folder.
        notify: takes remarks about damaged checkpoints that were passed over.

    Raises:
        UserError: nothing to resume from, every checkpoint is damaged, or a new run in a folder that has checkpoints.
    """
    own = list_checkpoints(folder.checkpoints)
    if resume == "never":
        if own:
            raise UserError(
                f"{folder} already holds checkpoints up to {own[0].name}, and resume is `never`; "
                "choose another `output` or `name`, remove the folder, or continue the run with `--resume auto`."
            )
        return None
    if resume == "auto":
        return _newest_whole(own, own, notify) if own else None
    path = Path(resume)
    inside = list_checkpoints(RunFolder(path).checkpoints) or list_checkpoints(path)
    candidates = [path] if (path / MANIFEST).exists() else inside
    if not candidates:
        found = "an empty folder" if path.is_dir() and not any(path.iterdir()) else "no checkpoint"
        found = found if path.exists() else "no such folder"
        hint = "" if path.exists() else similar_folders(path)
        raise UserError(
            f"cannot resume from {path}: {found}{hint and f'; {hint}'}. Give a run folder or one of its "
            "checkpoints/step-... folders, or use `--resume auto` to start anew where there is none."
        )
    if own and candidates[0].resolve().parent != folder.checkpoints.resolve():
        raise UserError(
            f"cannot resume from {path} into {folder}: that folder has checkpoints of its own, up to {own[0].name}; "
            "choose another `output` or `name`."
        )
    return _newest_whole(candidates, own, notify)


def accept(point: ResumePoint, now: dict[str, Any], steps: int, force_new_mixture: bool = False) -> ResumePoint:
    """Compare what a checkpoint says of its run with this one.

    Args:
        point: the checkpoint.
        now: `identity` of this run.
        steps: length of this run.
        force_new_mixture: accept another mixture; the result's manifest records it as a deviation.

    Raises:
        UserError: they differ; the message names every differing key with both values.
    """
    then, step = point.manifest.identity, point.manifest.step
    differing = differing_keys(then, now)
    forced = [key for key in differing if force_new_mixture and key.startswith(_MIXTURE)]
    refused = [key for key in differing if key not in forced]
    if refused:
        lines = [f"  {key}: {_said(then, key)} in the checkpoint, {_said(now, key)} now" for key in refused]
        if "train.steps" in refused:
            lines.append(
                "  (With optimizer.schedule: linear the rate of every step depends on train.steps; else it may change.)"
            )
        hint = (
            " (or accept another mixture with --force-new-mixture)"
            if any(key.startswith(_MIXTURE) for key in refused)
            else ""
        )
        raise UserError(
            f"{point.path} belongs to another run:\n" + "\n".join(lines) + "\n"
            f"Set these keys back to continue it{hint}, or start a new run with another `output` or `name`."
        )
    if step > steps:
        raise UserError(
            f"{point.path} has {step} steps behind it, but train.steps is {steps}; raise train.steps, "
            "or start a new run with another `output` or `name`."
        )
    changes = [_change(key, now.get(key), then.get(key), step) for key in forced]
    return replace(point, manifest=replace(point.manifest, changes=[*point.manifest.changes, *changes]))


def _said(identity: dict[str, Any], key: str) -> str:
    return repr(identity[key]) if key in identity else "free"


def _change(key: str, value: Any, before: Any, step: int) -> dict[str, Any]:
    sentence = f"{key} is {value} from step {step + 1} on; the steps before had {before} (--force-new-mixture)."
    return Deviation(key, value, before, sentence).as_dict()


def _newest_whole(candidates: list[Path], own: list[Path], notify: Callable[[str], None]) -> ResumePoint:
    reasons = []
    for candidate in candidates:
        try:
            manifest = read_manifest(candidate)
        except UserError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            notify(f"{reason} Going back to {candidate.name}.")
        newer = tuple(path for path in own if path.name > candidate.name)
        return ResumePoint(candidate, manifest, newer)
    raise UserError("cannot resume, no checkpoint is whole:\n  " + "\n  ".join(reasons))
