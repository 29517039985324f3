"""Worker processes that end when the process that started them does, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


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
