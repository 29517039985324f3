"""How the processes of a run find each other: a store that all of them reach, and a name that only they know."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from t0train.core.errors import LostContactError
from t0train.distributed.place import Place

_INTERVAL_S = 0.1


def meet(place: Place, timeout_s: float) -> tuple[TCPStore, str]:
    """Wait until all processes are there; returns the store and a name for what they write into it.

    The store may be older than the run: torchrun keeps it when it restarts processes that failed (--max-restarts),
    with all that the earlier ones wrote. What torchrun says about restarts does not tell them apart, because each
    machine counts its own, so the first process makes the name, and gives it to those who answer now.

    Raises:
        LostContactError: the store cannot be reached, or a process did not come in time.
    """
    host, port = place.address
    here = f"process {place.rank} of {place.size}"
    try:
        is_master = place.rank == 0 and not place.has_launcher
        store = TCPStore(host, port, None, is_master, timedelta(seconds=timeout_s), wait_for_workers=False)
        return store, _agree_on_name(store, place, timeout_s)
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


def _agree_on_name(store: Store, place: Place, timeout_s: float) -> str:
    own = uuid4().hex
    tickets = {rank: f"ticket/{rank}" for rank in range(1, place.size)}
    if place.rank:

        def is_called() -> bool:
            store.set(tickets[place.rank], own)  # again and again: the first process throws old ones away
            return bool(store.check([f"name/{own}"]))

        _wait(is_called, timeout_s, lambda: "process 0")
        return str(store.get(f"name/{own}").decode())
    for ticket in tickets.values():
        store.delete_key(ticket)

    def missing() -> str:
        return ", ".join(f"process {rank}" for rank, ticket in tickets.items() if not store.check([ticket]))

    _wait(lambda: bool(store.check([*tickets.values()])), timeout_s, missing)
    for ticket in tickets.values():
        store.set(f"name/{store.get(ticket).decode()}", own)
    return own


def _wait(condition: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
    """Look again and again, so that signals are noticed in between."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what())
        time.sleep(_INTERVAL_S)


def first_line(error: BaseException) -> str:
    """What a message of the communication libraries says before it becomes technical."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
