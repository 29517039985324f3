"""Other processes at work in a folder: one that was killed there, one that holds it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from t0train.core.lock import hold_lock

T = TypeVar("T")
_KILLED = """
import os, signal, sys
from pathlib import Path
from t0train.core import files

files.fsync_tree = os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
kind, *paths = sys.argv[1:]
for path in map(Path, paths):
    child = os.fork()
    if child == 0 and kind == "file":
        files.write_atomic(path, "half")
    elif child == 0:
        with files.atomic_folder(path, os.listdir(path)) as folder:
            (folder / "half").write_text("half")
    os.waitpid(child, 0)
"""


def killed_while_writing(*paths: Path, kind: str = "file") -> list[Path]:
    """What processes leave that are killed while they write these files (or `kind`: folders)."""

    def beside() -> set[Path]:
        return {there for path in paths if path.parent.is_dir() for there in path.parent.iterdir()}

    before = beside()
    subprocess.run([sys.executable, "-c", _KILLED, kind, *map(str, paths)], check=True)
    left = [path for path in beside() - before if path.suffix == ".tmp"]
    assert len(left) == len(paths)
    return left


def after_waiting(lock: Path, call: Callable[[], T], capsys: pytest.CaptureFixture[str]) -> T:
    """What a call returns that says that it waits while another one holds the lock, and goes on when it is free."""
    returned: list[T] = []
    said = ""
    thread = threading.Thread(target=lambda: returned.append(call()))
    with hold_lock(lock, "held by the test"):
        thread.start()
        end = time.monotonic() + 60
        while "waiting" not in said:
            assert thread.is_alive(), said
            assert time.monotonic() < end, said
            said += capsys.readouterr().err
            time.sleep(0.01)
        assert not returned
    thread.join(60)
    assert not thread.is_alive()
    return returned[0]
