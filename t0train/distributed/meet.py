"""How the processes of a run find each other: a store that all of them reach, and a name that only they know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import uuid4

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from t0train.core.console import say
from t0train.core.errors import LostContactError, PreemptedError
from t0train.core.processes import NativeThreads, stop_request
from t0train.distributed.place import Place

_INTERVAL_S = 0.1
_NOTICE_AFTER_S = 5.0  # then a process says whom it waits for, and again whenever _NOTICE_EVERY_S have passed
_NOTICE_EVERY_S = 60.0
_GRACE_S = 5.0  # after a signal: it has most often reached all processes, which then meet and stop together


def meet(place: Place, timeout_s: float) -> tuple[TCPStore, str]:
    """Wait until all processes are there; returns the store and a name for what they write into it.

    The store may be older than the run: torchrun keeps it when it restarts processes that failed (--max-restarts),
    with all that the earlier ones wrote. What torchrun says about restarts does not tell them apart, because each
    machine counts its own, so the first process makes the name, and gives it to those who answer now.

    After some seconds stderr says who is missing. The first process says it as soon as it is there itself.

    Raises:
        LostContactError: the store cannot be reached, or a process did not come in time.
        PreemptedError: a stop signal came, and not all processes were there within seconds.
    """
    host, port = place.address
    here = f"process {place.rank} of {place.size}"
    waiting = _Waiting(here, f"{host}:{port}", timeout_s)
    try:
        store = _connect(place, timeout_s, waiting)
        return store, _agree_on_name(store, place, waiting)
    except RuntimeError as error:
        raise LostContactError(
            f"{here} cannot reach {host}:{port}, where the run's processes meet ({first_line(error)}). Check that the "
            "machine can be reached and the port is free (MASTER_PORT)."
        ) from error
    except TimeoutError as error:
        raise LostContactError(
            f"{here} has waited {timeout_s:g} s at {host}:{port} for {error} (train.timeout_s). Check that all are "
            "started, with the same addresses and numbers."
        ) from error


class _Waiting:
    """Waits for other processes: says whom it waits for, and ends at a timeout or a stop signal.

    Args:
        here: what messages call this process.
        address: where it waits.
        timeout_s: for all its waiting together.
    """

    def __init__(self, here: str, address: str, timeout_s: float) -> None:
        self._here, self._address = here, address
        self._start = time.monotonic()
        self._timeout_s, self._notice_s = timeout_s, _NOTICE_AFTER_S
        self._stopped_s: float | None = None

    def until(self, condition: Callable[[], bool], missing: Callable[[], str], speaks: Callable[[], bool]) -> None:
        """Look again and again, so that signals are noticed in between.

        Args:
            condition: what is waited for.
            missing: names the processes that are not there.
            speaks: whether it is on this process to say that they are missing.

        Raises:
            TimeoutError: naming them.
            PreemptedError: see `meet`.
        """
        while not condition():
            waited = time.monotonic() - self._start
            if waited > self._timeout_s:
                raise TimeoutError(missing())
            if stop_request():
                self._stopped_s = waited if self._stopped_s is None else self._stopped_s
                if waited - self._stopped_s >= _GRACE_S:
                    raise PreemptedError(
                        f"{stop_request().signal} received while {self._here} waited for {missing()}; run the same "
                        "command again."
                    )
            if waited > self._notice_s and speaks():
                say(
                    f"{self._here} has waited {waited:.0f} s at {self._address} for {missing()}; it gives up after "
                    f"{self._timeout_s:g} s (train.timeout_s)"
                )
                self._notice_s = waited + _NOTICE_EVERY_S
            time.sleep(_INTERVAL_S)


def _connect(place: Place, timeout_s: float, waiting: _Waiting) -> TCPStore:
    """Connect in another thread: the call does not return before somebody listens at the address."""
    is_master = place.rank == 0 and not place.has_launcher
    outcome: list[TCPStore | Exception] = []

    def connect() -> None:
        try:
            timeout = timedelta(seconds=timeout_s)
            outcome.append(TCPStore(*place.address, None, is_master, timeout, wait_for_workers=False))
        except Exception as error:
            outcome.append(error)

    threads = NativeThreads()
    thread = threads.start(connect, "connect")
    try:
        waiting.until(lambda: not thread.is_alive(), lambda: "process 0, which is to listen there", lambda: True)
    except TimeoutError:
        thread.join(_GRACE_S)  # the call gives up now, too, and says why it could not connect
        if thread.is_alive():
            raise
    threads.stop()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _agree_on_name(store: Store, place: Place, waiting: _Waiting) -> str:
    own = uuid4().hex
    tickets = {rank: f"ticket/{rank}" for rank in range(1, place.size)}
    return (
        _take_name(store, tickets[place.rank], own, waiting) if place.rank else _give_name(store, tickets, own, waiting)
    )


def _take_name(store: Store, ticket: str, own: str, waiting: _Waiting) -> str:
    """The part of the other processes."""

    def is_called() -> bool:
        store.set(ticket, own)  # again and again: the first process throws old ones away
        return bool(store.check([f"name/{own}"]))

    def is_noticed() -> bool:
        return bool(store.check([f"missing/{own}"]))

    def missing() -> str:
        return str(store.get(f"missing/{own}").decode()) if is_noticed() else "process 0"

    try:
        waiting.until(is_called, missing, speaks=lambda: not is_noticed())
    except PreemptedError:
        store.delete_key(ticket)  # else the first process would count on this one
        raise
    return str(store.get(f"name/{own}").decode())


def _give_name(store: Store, tickets: Mapping[int, str], own: str, waiting: _Waiting) -> str:
    """The part of the first process."""
    for ticket in tickets.values():
        store.delete_key(ticket)
    answers: list[str] = []
    told = ""

    def all_are_here() -> bool:
        nonlocal answers, told
        absent = missing()
        answers = [store.get(ticket).decode() for ticket in tickets.values() if store.check([ticket])]
        if absent != told:
            for answer in answers:
                store.set(f"missing/{answer}", absent)
            told = absent
        return not absent

    def missing() -> str:
        return ", ".join(f"process {rank}" for rank, ticket in tickets.items() if not store.check([ticket]))

    waiting.until(all_are_here, missing, lambda: True)
    for answer in answers:
        store.set(f"name/{answer}", own)
    return own


def first_line(error: BaseException) -> str:
    """What a message of the communication libraries says before it becomes technical."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
