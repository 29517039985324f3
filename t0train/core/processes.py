"""Worker processes that end when the process that started them does, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait


@contextmanager
def keeping_interrupts() -> Iterator[None]:
    """Processes that are started within leave Ctrl-C to this one, from their first instruction on.

    Ctrl-C reaches all processes of a terminal. This one then ends the work in good order; a worker that it reached
    during its imports would print a traceback.
    """
    resource_tracker.ensure_running()  # it is started with the first worker otherwise, which lets interrupts through
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def follow_parent() -> None:
    """Make this worker process end with its parent; call it first thing in a spawned process.

    A worker that waits for its next piece of work does not notice by itself that nobody will send one.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="follow parent", daemon=True).start()
