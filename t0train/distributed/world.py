"""The processes of a run, and what they agree on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, Store  # type: ignore[attr-defined]

from t0train.core.errors import EXIT_PREEMPTED, LostContactError, PreemptedError, QuietError, UserError
from t0train.distributed.alarm import AGAIN, Alarm
from t0train.distributed.device import agree_on_devices, choose_device
from t0train.distributed.meet import first_line, meet
from t0train.distributed.place import Place

T = TypeVar("T")
# how gloo, NCCL and the store say that another process does not answer
_LOST = re.compile(r"gloo|NCCL|connection (closed|reset|refused|was)|timed? ?out|broken pipe|TCPStore", re.IGNORECASE)


@dataclass(frozen=True)
class World:
    """The processes of a run as one of them sees them. Alone, everything below is as simple as it looks.

    Attributes:
        place: which process this is.
        device: what it computes on.
        group: the process group of small messages between CPUs; None for a process that is alone.
        background: the same processes with a group of their own, for another thread.
    """

    place: Place = field(default_factory=Place)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: dist.ProcessGroup | None = None
    background_group: dist.ProcessGroup | None = None

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.place.rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.place.size

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def background(self) -> World:
        """The same world for another thread, so that its messages do not mix with this one's."""
        return World(self.place, self.device, self.background_group)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, in double precision."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return [float(value) for value in total]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in some process."""
        return self.sum([flag])[0] > 0

    def together(self, function: Callable[[], T]) -> list[T]:
        """Call `function` in every process; returns all results by rank. If it raises in one, it raises in all."""
        if self.size == 1:
            return [function()]
        own = _attempt(function)
        outcomes: list[tuple[T | None, Exception | None]] = [(None, None)] * self.size
        dist.all_gather_object(outcomes, own, group=self.group)
        return [_result(outcome) for outcome in outcomes]

    def from_first(self, function: Callable[[], T]) -> T:
        """Call `function` in the first process; returns its result, or raises what it raised, in all of them."""
        if self.size == 1:
            return function()
        outcome = [_attempt(function) if self.is_first else (None, None)]
        dist.broadcast_object_list(outcome, src=0, group=self.group)
        return _result(outcome[0])


def _attempt(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:
        return None, error


def _result(outcome: tuple[T | None, Exception | None]) -> T:
    value, error = outcome
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


@contextmanager
def join(place: Place, device: str, group_of_one: bool, timeout_s: float) -> Iterator[World]:
    """Meet the other processes of the run, and part at the end.

    If the block raises in one process, all of them end, and one says why.

    Args:
        place: which process this is.
        device: `auto`, `cpu` or `cuda`.
        group_of_one: make a process group even for a process that is alone (what shards or replicates needs one).
        timeout_s: how long an operation waits for the other processes.

    Raises:
        LostContactError: another process died, or the connection to it was lost.
        QuietError: another process failed; the first one that failed raises its own error.
    """
    if place.size > 1:
        with _join_others(place, device, timeout_s) as world:
            yield world
    elif group_of_one:
        world = _enter_group(place, _take_device(device, place), HashStore(), timeout_s)
        try:
            yield world
        finally:
            dist.destroy_process_group()
    else:
        yield World(place, _take_device(device, place))


@contextmanager
def _join_others(place: Place, device: str, timeout_s: float) -> Iterator[World]:
    stopped = None
    store, name = meet(place, timeout_s)
    alarm = Alarm(place.address, name, place.rank, place.size, timeout_s)
    with _all_end_with_one(place, alarm):
        ours, own = PrefixStore(name, store), _take_device(device, place)
        agree_on_devices(place, own, ours)
        world = _enter_group(place, own, ours, timeout_s)
        try:
            yield world
        except PreemptedError as error:  # all processes agreed on it
            stopped = error
        world.together(lambda: None)  # nobody leaves while another still needs the store
        alarm.stop()
        dist.destroy_process_group()
    if stopped:
        raise stopped if world.is_first else QuietError(EXIT_PREEMPTED)


@contextmanager
def _all_end_with_one(place: Place, alarm: Alarm) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        plain = _plainly(error, place)
        first = alarm.raise_alarm(plain)  # the group stays: leaving it could wait for those that are gone
        if first.rank == place.rank:
            raise plain from error
        raise QuietError(first.code) from error


def _take_device(name: str, place: Place) -> torch.device:
    device = choose_device(name, place)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _enter_group(place: Place, device: torch.device, store: Store, timeout_s: float) -> World:
    timeout = timedelta(seconds=timeout_s)
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.size,
        timeout=timeout,
        device_id=device if on_gpu else None,
    )
    return World(place, device, _cpu_group(timeout), _cpu_group(timeout))


def _cpu_group(timeout: timedelta) -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timeout)
    return group


def _plainly(error: BaseException, place: Place) -> BaseException:
    """Messages of the communication libraries in words that help."""
    if isinstance(error, UserError) or not isinstance(error, RuntimeError) or not _LOST.search(str(error)):
        return error
    return LostContactError(
        f"process {place.rank} of {place.size} lost contact with another one ({first_line(error)}). A process was "
        f"killed, a machine failed or the network broke. {AGAIN}"
    )
