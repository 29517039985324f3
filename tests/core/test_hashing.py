"""Seeds and content hashes: functions of their key alone, on every machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from t0train.core.hashing import content_hash, derive_seed, file_sha256, generator, mix64


def test_a_seed_is_blake2b_of_its_key() -> None:
    digest = hashlib.blake2b(b"7\x1ftask\x1f3", digest_size=8).digest()
    assert derive_seed(7, "task", 3) == int.from_bytes(digest, "little")


def test_keys_do_not_run_into_each_other() -> None:
    keys = [(1, 23), (12, 3), (123,), ("1", "2", "3"), (1, 2, 3, ""), ("", 1, 2, 3)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_generators_of_one_key_agree_and_of_two_keys_differ() -> None:
    first, again, other = (generator(*key).random(1000) for key in ((0, "a"), (0, "a"), (0, "b")))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.15


def test_seeds_are_spread_evenly() -> None:
    bits = np.array([[derive_seed(number) >> bit & 1 for bit in range(64)] for number in range(2000)])
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.06)  # 5 standard errors


def test_another_process_draws_the_same() -> None:
    code = "from t0train.core.hashing import generator; print(generator('x', 5).integers(0, 2**62))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{generator('x', 5).integers(0, 2**62)}\n"}


def test_content_hash_is_sha256_of_canonical_json() -> None:
    value = {"b": [1, 2.5, None, True], "a": "ü"}
    canonical = '{"a":"ü","b":[1,2.5,null,true]}'.encode()
    assert content_hash(value) == hashlib.sha256(canonical).hexdigest()[:16]
    assert content_hash(dict(reversed(value.items())), length=64) == hashlib.sha256(canonical).hexdigest()


def test_file_hash(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_mix64_is_the_finaliser_of_splitmix64() -> None:
    """The first outputs of SplitMix64 from seed 0 (Steele, Lea, Flood 2014, as in Java's SplittableRandom)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        states = golden * np.arange(1, 4, dtype=np.uint64)
    assert [hex(value) for value in mix64(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]
