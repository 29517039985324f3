"""Worker processes that end when the process that started them does, however that ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from typing import NoReturn


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


_JOIN_S = 5.0
_groups: list[NativeThreads] = []


class NativeThreads:
    """Daemon threads that are to end together.

    Attributes:
        over: set when they should end; each looks at it between two calls.
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []
        _groups.append(self)
        atexit.register(self.stop)  # for processes that end without `leave`

    def start(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Start one more thread of the group."""
        thread = threading.Thread(target=target, daemon=True, name=name)
        self._threads.append(thread)
        thread.start()
        return thread

    def stop(self, timeout_s: float = _JOIN_S) -> bool:
        """Tell the threads to end and wait for them, at most `timeout_s` in all; returns whether all have ended."""
        self.over.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False
        atexit.unregister(self.stop)
        with suppress(ValueError):
            _groups.remove(self)
        return True


def leave(code: int) -> NoReturn:
    """End the process with an exit code that is kept even if a call into C++ never returns."""
    stopped = [group.stop() for group in [*_groups]]
    if all(stopped):
        sys.exit(code)
    end_at_once(code)


def end_at_once(code: int) -> NoReturn:
    """End the process from any thread, with what was printed so far, and without waiting for anything else."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe, a terminal that is gone
            stream.flush()
    os._exit(code)
