"""Content hashes: of plain objects, of files, and 64-bit seeds derived from a key.

Randomness is a pure function of a key: no global state, nothing to save, the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray


def content_hash(value: Any, length: int = 16) -> str:
    """First `length` hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def first_damage(folder: Path, checksums: Mapping[str, str]) -> str:
    """What is wrong with the first file below `folder` that is not as its SHA-256 says; empty if all are."""
    for name, expected in checksums.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return f"{name!r} leaves the folder"
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if (found := file_sha256(file)) != expected:
            return f"{name} has SHA-256 {found[:12]}..., its manifest says {expected[:12]}..."
    return ""


def derive_seed(*key: object) -> int:
    """A 64-bit seed from any key of strings and integers, e.g. `derive_seed(seed, task.name, row)`."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*key: object) -> np.random.Generator:
    """A NumPy generator (Philox, counter-based) for this key alone."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*key)))


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a hash of 64-bit integers, element by element (arithmetic wraps)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
