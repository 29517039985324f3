"""Stopping at the next good moment when the cluster (SIGTERM) or the user (SIGUSR1) asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass
class StopRequest:
    """Becomes true when a signal arrived; `signal` is its name."""

    signal: str = ""

    def __bool__(self) -> bool:
        return bool(self.signal)


_open: list[StopRequest] = []


def stop_request() -> StopRequest:
    """The request of the innermost `stop_on_signals` block; outside of one, a request that never comes."""
    return _open[0] if _open else StopRequest()


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block a signal only sets a flag, however often it comes: nothing that is being written is disturbed.

    A block inside another one has the same flag. Outside the main thread (some notebooks) Python allows no handlers,
    and signals keep their usual effect.
    """
    if _open or threading.current_thread() is not threading.main_thread():
        yield stop_request()
        return
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in SIGNALS}
    _open.append(request)
    try:
        yield request
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
