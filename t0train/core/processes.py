"""How processes end: workers with the process that started them, threads joined, and a stop when a signal asks for it.

SIGTERM comes from the cluster; SIGUSR1, Ctrl-C and SIGHUP from the user.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from t0train.core.errors import EXIT_INTERRUPTED


def follow_parent() -> None:
    """Make this worker process end with its parent; call it first thing in a spawned process.

    A worker that waits for its next piece of work does not notice by itself that nobody will send one.
    """
    import multiprocessing
    from multiprocessing.connection import wait

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


SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
_STAY_IGNORED = (signal.SIGINT, signal.SIGHUP)  # by nohup, or by a shell that started the process in the background
_CLOSING_S = 0.05  # SIGHUP may arrive before the terminal is gone: look again this often
_ONE_PRESS_S = 0.1  # a launcher may pass a Ctrl-C on that the terminal has sent to all


@dataclass
class StopRequest:
    """Becomes true when a signal arrived.

    Attributes:
        signal: its name.
        before_end: called when a second Ctrl-C ends the process at once.
    """

    signal: str = ""
    before_end: list[Callable[[], None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.signal)


_open: list[StopRequest] = []


def stop_request() -> StopRequest:
    """The request of the outermost `stop_on_signals` block; outside of one, a request that never comes."""
    return _open[0] if _open else StopRequest()


@contextmanager
def stop_on_signals(announce: bool = False) -> Iterator[StopRequest]:
    """Within the block a signal only sets a flag, however often it comes: nothing that is being written is disturbed.

    The exception is Ctrl-C: the second one ends the process at once with `EXIT_INTERRUPTED`. Both work while the main
    thread waits in a call into C++, because another thread notes the signals too. SIGINT and SIGHUP that were ignored
    when the process started stay ignored (nohup).

    A block inside another one has the same flag. Outside the main thread (some notebooks) Python allows no handlers,
    and signals keep their usual effect.

    Args:
        announce: say on stderr what the first signal leads to; of several processes one should.
    """
    if _open or threading.current_thread() is not threading.main_thread():
        yield stop_request()
        return
    request = StopRequest()
    listener = _Listener(request, announce)

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number).name

    ignored = [number for number in _STAY_IGNORED if signal.getsignal(number) is signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in SIGNALS if number not in ignored}
    _open.append(request)
    try:
        yield request
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
        listener.close()


@contextmanager
def no_interrupts_for_children() -> Iterator[None]:
    """Processes that are started within the block do not receive a terminal's Ctrl-C, which this one answers for them.

    One that arrives in the meantime is received when the block ends.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it is started with the first child of multiprocessing, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Listener:
    """A thread to which the operating system's own handler writes the numbers of signals as they arrive."""

    def __init__(self, request: StopRequest, announce: bool) -> None:
        self._request, self._announce = request, announce
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        self._first_press: float | None = None
        self._is_announced = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True, name="signals")
        self._thread.start()

    def close(self) -> None:
        """End the thread, after it has looked at what has arrived."""
        signal.set_wakeup_fd(self._before)
        self._writer.close()
        self._thread.join()
        self._reader.close()
        self._forget_closed_terminals()

    def _listen(self) -> None:
        while numbers := self._receive():
            for number in numbers:
                if number in SIGNALS:
                    self._note(signal.Signals(number))

    def _receive(self) -> bytes:
        while True:
            try:
                return self._reader.recv(64)
            except TimeoutError:
                self._forget_closed_terminals()

    def _note(self, number: signal.Signals) -> None:
        self._request.signal = number.name
        if number == signal.SIGHUP:
            self._reader.settimeout(_CLOSING_S)
            self._forget_closed_terminals()
        if number == signal.SIGINT:
            self._press()
        elif not self._is_announced:
            self._say(f"{number.name}: saving a checkpoint after this step")

    def _press(self) -> None:
        now = time.monotonic()
        if self._first_press is None:
            self._first_press = now
            self._say("Ctrl-C: saving a checkpoint after this step; press again to end at once")
        elif now - self._first_press > _ONE_PRESS_S:
            for function in self._request.before_end:
                function()
            self._say("Ctrl-C again: ended at once, without another checkpoint")
            end_at_once(EXIT_INTERRUPTED)

    def _say(self, sentence: str) -> None:
        self._is_announced = True
        if self._announce:
            line = f"\r\x1b[K\x1b[?25h{sentence}\n" if 2 in self._terminals else f"{sentence}\n"  # past a progress bar
            with suppress(OSError):
                os.write(2, line.encode())

    def _forget_closed_terminals(self) -> None:
        """What goes on without its terminal must not fail because of what it prints there."""
        for number in self._terminals:
            try:
                termios.tcgetattr(number)
            except termios.error:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
