"""Start the processes of a run on this machine: `t0train train --nproc N`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from t0train.core.errors import EXIT_FAILED, EXIT_PREEMPTED, UserError
from t0train.core.processes import StopRequest, stop_on_signals
from t0train.distributed.place import LAUNCHER, find_place

_PATIENCE_S = 30.0  # for the other processes to end after the first one that failed


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `t0train ARGUMENTS` in `processes` processes that know each other; returns the exit code of the run.

    A signal to stop goes on to every process. When one fails, the others are given some seconds, then killed.

    Raises:
        UserError: this process is itself one of several.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if "RANK" in os.environ or find_place().size > 1:
        raise UserError("--nproc starts processes itself; leave it out under torchrun, srun or mpirun.")
    # wherever the processes die, the store stays until this process ends
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=5))
    shared = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        LAUNCHER: "True",
    }
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    command = [sys.executable, "-m", "t0train", *arguments]
    with stop_on_signals() as stop, _children() as children:
        for rank in range(processes):
            here = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(subprocess.Popen(command, env=here))  # noqa: S603 (our own arguments)
        return _wait(children, stop)


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> int:
    """The exit code of the first process that failed, or 0."""
    forwarded, code, deadline = "", 0, float("inf")
    while True:
        ended = [child.poll() for child in children]
        failed = [(rank, ending) for rank, ending in enumerate(ended) if ending]
        if failed and code == 0:
            rank, ending = failed[0]
            code = _code_of_run(rank, ending, forwarded)
            has_begun = code != EXIT_PREEMPTED or ending > 0  # else one is gone for whom the others would wait
            deadline = time.monotonic() + (_PATIENCE_S if has_begun else 0)
        if None not in ended or time.monotonic() > deadline:
            return code
        if stop.signal != forwarded:
            forwarded = stop.signal
            for child in children:
                child.send_signal(signal.Signals[forwarded])
        time.sleep(0.05)


def _code_of_run(rank: int, code: int, forwarded: str) -> int:
    """What the end of its first process means for the run."""
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    if name == forwarded:
        print(f"stopped: {name} received; run the same command again.", file=sys.stderr)
        return EXIT_PREEMPTED
    print(f"error: process {rank} of the run was ended by {name}", file=sys.stderr)
    return EXIT_FAILED


@contextmanager
def _children() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list of processes that do not outlive the block."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        yield children
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
