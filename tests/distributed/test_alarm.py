"""A store that stalls when a run ends does not change its exit code; silence is told from life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from t0train.distributed.alarm import Silence
from tests.distributed.helpers import ENVIRONMENT

SCRIPT = Path(__file__).with_name("leaving_run.py")
SERVER = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
print(store.port, flush=True)
time.sleep(600)
"""


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """Port and process of a store that can be stopped."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.communicate()


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "stalled_s", "code", "said"),
    [
        ("well", 0.4, 0, ""),
        ("stopped", 0.4, 85, "stopped: step 7"),
        ("stopped", 60, 85, "stopped: step 7"),
        ("bad input", 60, 2, "error: this process is unwell"),
    ],
)
def test_a_store_that_stalls_at_the_end_does_not_change_the_exit_code(
    server: tuple[int, int], how: str, stalled_s: float, code: int, said: str
) -> None:
    """Joined threads let the interpreter shut down; a thread that cannot be joined must not abort it."""
    port, pid = server
    command = [sys.executable, str(SCRIPT), how, str(port), str(pid), str(stalled_s)]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.wait(40) == code
        assert process.stdout
        assert process.stdout.readline() == "all steps are done\n"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what would wake the store later
        assert process.stderr
        assert said in process.stderr.read()


def test_silence_is_a_heartbeat_that_stands_still() -> None:
    silence = Silence(processes=3, looks=2)
    assert silence.look([b"0", b"0", b"7"]) == []
    assert silence.look([b"1", b"0", b"8"]) == []
    assert silence.look([b"2", b"0", b"8"]) == [1]
    assert silence.look([b"2", b"0", b"8"]) == [1, 2]
    assert silence.look([b"2", b"1", b"9"]) == [0]
    assert silence.look([b"3", b"1", b"10"]) == []
