"""Randomness as a pure function of a key: no global state, nothing to save, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


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
