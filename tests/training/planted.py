"""Checkpoints as a stranger could have made them: everything in them is consistent, and something is planted."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from t0train.core.hashing import content_hash, file_sha256


class Payload:
    """What makes the folder `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def seal(checkpoint: Path, files: dict[str, str] | None = None, **changes: Any) -> None:
    """Rewrite the manifest so that it fits the files, and itself."""
    content = json.loads((checkpoint / "manifest.json").read_text()) | changes
    content.pop("checksum", None)
    there = [file for file in checkpoint.rglob("*") if file.is_file() and file.name != "manifest.json"]
    content["files"] = files or {file.relative_to(checkpoint).as_posix(): file_sha256(file) for file in there}
    (checkpoint / "manifest.json").write_text(json.dumps({**content, "checksum": content_hash(content)}))


def change_metadata(checkpoint: Path, change: Callable[[Any], Any]) -> None:
    """Put what `change` makes of the index of the tensors in its place."""
    path = checkpoint / "state" / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(metadata) or metadata))
    seal(checkpoint)


def compress_first(checkpoint: Path) -> None:
    """Have the first tensor stored compressed, padded to its old length."""

    def change(metadata: Any) -> None:
        place = next(place for place in metadata.storage_data.values() if place.offset == 0)
        path = checkpoint / "state" / place.relative_path
        data = path.read_bytes()
        packed = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(data[: place.length])) as old,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
        front = packed.getvalue()
        path.write_bytes(data + front + bytes(max(0, place.length - len(front))))
        place.offset = len(data) - max(0, place.length - len(front))  # before it, as a zip file may have it
        place.length = len(data) + len(front) - place.offset
        path.write_bytes(data + front)

    change_metadata(checkpoint, change)
