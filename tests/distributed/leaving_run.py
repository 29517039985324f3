"""Run as a process of its own: end a command while an alarm's thread waits for a store that does not answer.

Arguments: how to end, the store's port and process, and after how many seconds the store answers again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

import t0train.cli.main
from t0train.core.errors import PreemptedError, UserError
from t0train.distributed.alarm import Alarm

how, port, server, stalled_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


class SlowShutdown:
    """Makes the interpreter's shutdown last, so that the store answers in the middle of it."""

    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(1.0)


slow = SlowShutdown()


def command() -> None:
    alarm = Alarm(("127.0.0.1", port), "run", 0, 1, timeout_s=20.0)
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=20))
    while store.add("run/beat/0", 0) < 1:
        time.sleep(0.05)
    os.kill(server, signal.SIGSTOP)
    time.sleep(1.3)  # the alarm asks the store once a second
    subprocess.Popen(["sh", "-c", f"sleep {stalled_s}; kill -CONT {server}"])
    print("all steps are done")  # into a pipe, so it stays in a buffer until it is flushed
    if how == "bad input":
        error = UserError("this process is unwell")
        alarm.raise_alarm(error)
        raise error
    alarm.stop()
    if how == "stopped":
        raise PreemptedError("step 7 is saved")


t0train.cli.main.app = command  # type: ignore[assignment]
t0train.cli.main.main()
