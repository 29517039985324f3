"""A disk that is full or read-only: one message, exit code 2, earlier checkpoints as they were."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from t0train.checkpoint import read_manifest
from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.core.run_folder import list_checkpoints
from t0train.training import train

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["t0train", "train", *sys.argv[2:]]
from t0train.cli.main import main
main()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk: this user may not mount a tmpfs (the test by file size limit ran)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_at_a_checkpoint(small_disk: Path, configure: Callable[..., RunConfig]) -> None:
    folder = small_disk / "run"
    train(configure(f"output={folder}", "train.steps=1"))
    (kept,) = list_checkpoints(folder / "checkpoints")
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - size // 2))
    with pytest.raises(UserError, match=r"cannot write .*step-00000002.*: the disk is full"):
        train(configure(f"output={folder}", "train.steps=2"))
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name != "latest"] == [kept.name]
    read_manifest(kept)
    (small_disk / "ballast").unlink()
    assert train(configure(f"output={folder}", "train.steps=2")).steps == 2


def test_full_disk_at_an_event(small_disk: Path, configure: Callable[..., RunConfig]) -> None:
    folder = small_disk / "run"
    train(configure(f"output={folder}", "train.steps=1"))
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(UserError, match=r"cannot write .*: the disk is full"):
        train(configure(f"output={folder}", "train.steps=200", "train.checkpoint.every=500"))
    (small_disk / "ballast").unlink()
    assert train(configure(f"output={folder}", "train.steps=2")).steps == 2


@pytest.mark.slow
def test_a_file_that_may_not_grow(world: Path, configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    """The same failure of write() as on a full disk, for users who may not mount anything."""
    folder = tmp_path / "run"
    train(configure("train.steps=1"))
    (kept,) = list_checkpoints(folder / "checkpoints")
    limit = (kept / "state" / "__0_0.distcp").stat().st_size // 2
    command = [sys.executable, "-c", LIMITED, str(limit), str(world / "run.yaml"), f"output={folder}", "train.steps=2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "error: cannot write" in ended.stderr
    assert "limit allows" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name != "latest"] == [kept.name]
    read_manifest(kept)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "only the subprocess was limited"


def test_read_only_folder(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    if os.geteuid() == 0:  # root may write anywhere, except where the file system itself is read-only
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(locked)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a read-only folder: this root may not mount a tmpfs")
    else:
        locked.chmod(0o555)
    try:
        with pytest.raises(UserError, match=r"cannot write to .*locked.*(read-only|permission)"):
            train(configure(f"output={locked / 'run'}"))
        assert list(locked.iterdir()) == []
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(locked)], check=True)


def test_a_file_in_the_way(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="is a file, but a folder is needed there"):
        train(configure())
    assert (tmp_path / "run").read_text() == "mine"
