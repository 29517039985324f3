"""Worker processes that end when the process that started them does, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def follow_parent() -> None:
    """Make this worker process end with its parent; call it first thing in a spawned process.

    A worker that waits for its next piece of work does not notice by itself that nobody will send one. Ctrl-C reaches
    all processes of a terminal: the worker leaves it to the parent, which then ends the work in good order.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="follow parent", daemon=True).start()
