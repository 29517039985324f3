"""What a checkpoint is made of, and the manifest by which its files are checked before any of them is opened.

Layout of `<run>/checkpoints/step-00000040/`: `state/` (torch.distributed.checkpoint: parameters under `model`, and
under `optimizer` each parameter's state tensors by name, so that any strategy can read them), `model.json` (the model's
architecture), `manifest.json` (position in the row stream, what the run must not change, SHA-256 of every file).
`<run>/checkpoints/latest` holds the name of the newest one and is written last.
"""

from __future__ import annotations

import json
import platform
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from t0train.core.errors import UserError
from t0train.core.hashing import content_hash, first_damage
from t0train.core.run_folder import MANIFEST
from t0train.core.version import t0train_version

STATE, MODEL, LATEST = "state", "model.json", "latest"
METADATA = ".metadata"


def _versions() -> dict[str, str]:
    import torch

    return {"t0train": t0train_version(), "torch": torch.__version__, "python": platform.python_version()}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What a checkpoint says about itself.

    Attributes:
        step: optimizer steps done.
        rows: (window, row) of the next row of the stream.
        identity: everything that must be the same for the run to be continued, by key.
        config: content hash of the whole configuration.
        versions: of the software that wrote it.
        changes: deviations that were forced on the run on its way, as dictionaries.
        temporary: written between the regular ones; the next checkpoint takes its place.
    """

    step: Annotated[int, Field(ge=0)]
    rows: tuple[int, int]
    identity: dict[str, Any]
    config: str
    versions: dict[str, str] = field(default_factory=_versions)
    changes: list[dict[str, Any]] = field(default_factory=list)
    temporary: bool = False


def is_temporary(path: Path) -> bool:
    """Whether a checkpoint only bridges the time to the next one; what cannot be read is none of that kind."""
    try:
        return json.loads((path / MANIFEST).read_text(encoding="utf-8"))["temporary"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_manifest(path: Path, check_files: bool = True) -> Manifest:
    """Check the whole checkpoint (every file's SHA-256) and return its manifest.

    Args:
        path: the checkpoint.
        check_files: False to look at the manifest alone, where the files are checked when they are read.

    Raises:
        UserError: something is missing, differs or is there without being listed; the message names the file.
    """
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        checksum, files = content.pop("checksum"), TypeAdapter(dict[str, str]).validate_python(content["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"checkpoint {path} is damaged: {MANIFEST} is missing or unreadable.") from error
    if checksum != content_hash(content):
        raise UserError(f"checkpoint {path} is damaged: {MANIFEST} does not match its own checksum.")
    del content["files"]
    try:
        manifest = TypeAdapter(Manifest).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"checkpoint {path} is damaged: {MANIFEST}: {where}: {first['msg']}.") from error
    if check_files and (damage := _first_unlisted(path, files) or first_damage(path, files)):
        raise UserError(f"checkpoint {path} is damaged: {damage}.")
    return manifest


def _first_unlisted(path: Path, files: dict[str, str]) -> str:
    """The first file that would be read although its checksum is unknown."""
    there = {file.relative_to(path).as_posix() for file in (path / STATE).rglob("*") if not file.is_dir()}
    unlisted = sorted(({MODEL, f"{STATE}/{METADATA}"} | there) - files.keys())
    return f"{unlisted[0]} is not listed in {MANIFEST}" if unlisted else ""
