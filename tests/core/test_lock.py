"""Locks: one holder at a time, by flock or without it; a waiting process says for whom, and obeys signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from t0train.core.errors import PreemptedError, UserError
from t0train.core.lock import hold_lock, lock_holder
from t0train.core.processes import stop_on_signals

HOLD = """
    import sys, time
    from pathlib import Path
    from t0train.core.lock import hold_lock
    with hold_lock(Path(sys.argv[1]), "busy"):
        print("held", flush=True)
        time.sleep(600)
"""


@contextmanager
def another_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_that_is_held_is_refused_by_name(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match=r"process \d+ on .* is preparing x")
    with another_holder(tmp_path / ".lock"), refused, hold_lock(tmp_path / ".lock", "preparing x"):
        pass


def test_a_waiting_process_says_so_and_goes_on_when_the_holder_is_gone(tmp_path: Path) -> None:
    said: list[str] = []
    with another_holder(tmp_path / ".lock") as process:
        threading.Timer(1, process.kill).start()
        with hold_lock(tmp_path / ".lock", "preparing x", said.append):
            assert lock_holder(tmp_path / ".lock").startswith(f"process {os.getpid()} on ")
    assert len(said) == 1
    assert f"process {process.pid}" in said[0]
    assert "preparing x" in said[0]


def test_nobody_is_waited_for_where_the_lock_is_free(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with hold_lock(tmp_path / ".lock", "x", said.append):
            pass
    assert said == []


def test_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    with another_holder(tmp_path / ".lock"), stop_on_signals():
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        begun = time.monotonic()
        with pytest.raises(PreemptedError, match="SIGTERM"), hold_lock(tmp_path / ".lock", "x", print):
            pass
        assert time.monotonic() - begun < 30


def test_a_link_in_place_of_the_lock_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="symbolic link"), hold_lock(tmp_path / ".lock", "x"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_without_flock_a_marker_file_excludes_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(handle: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    path = tmp_path / ".lock"
    with hold_lock(path, "x"):
        assert lock_holder(path).startswith(f"process {os.getpid()} on ")
        with pytest.raises(UserError, match="another process"), hold_lock(path, "y"):
            pass
    assert not path.exists()
    path.write_text(f"{2**22 + 1}\n{os.uname().nodename}\n")  # of a holder that is gone: no process has that number
    with hold_lock(path, "x", print):
        pass
