"""Failure propagation: the first failing process reports its error, and no other waits for a process that is gone."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from t0train.core.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, UserError
from t0train.core.processes import NativeThreads, end_at_once

AGAIN = "Run the same command again to continue from the newest checkpoint."
_INTERVAL_S = 1.0
_PATIENCE_S = 15.0  # for a process to end by itself, with its own words
_SILENCE_S = 90.0  # longer than any process is held up while it lives
_KINDS = {EXIT_BAD_INPUT: "bad input", EXIT_INTERRUPTED: "interrupted"}


@dataclass(frozen=True)
class Failure:
    """The first failure of a run: whose, with which exit code."""

    rank: int
    code: int


def exit_code(error: BaseException) -> int:
    """What a process ends with after `error`."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_FAILED


class Silence:
    """Finds processes whose heartbeat has stopped.

    It counts looks, not seconds: where everything was paused, this process has not looked either.

    Args:
        processes: how many are watched.
        looks: in how many further ones the same heartbeat means silence.
    """

    def __init__(self, processes: int, looks: int) -> None:
        self._looks = looks
        self._seen: list[tuple[bytes, int]] = [(b"", 0)] * processes

    def look(self, beats: Sequence[bytes]) -> list[int]:
        """Positions of the heartbeats [processes] that have been the same for too long."""
        both = zip(self._seen, beats, strict=True)
        self._seen = [(beat, still + 1 if beat == before else 0) for (before, still), beat in both]
        return [position for position, (_, still) in enumerate(self._seen) if still >= self._looks]


class Alarm:
    """The place in the run's store where the first failure is written, and threads that look at it.

    A collective operation that waits for a process that has failed cannot be interrupted by Python (nor, with NCCL,
    does it end soon by itself), so a thread ends the process if it does not end by itself within some seconds. Every
    process also writes a heartbeat; the first one looks at those of all, all others at the first one's, and silence
    is a failure of the silent process. A process that loses the store (it lives in the launcher or in rank 0) ends
    too; because a question to it may never return where a line was cut, a second thread counts how long it takes.

    Args:
        address: host and port of the store of the run's processes.
        prefix: of the run's keys in the store.
        rank: of this process.
        size: how many processes there are.
        timeout_s: after this time, or earlier, a process that says nothing has failed.
    """

    def __init__(self, address: tuple[str, int], prefix: str, rank: int, size: int, timeout_s: float) -> None:
        self._address, self._rank, self._name = address, rank, f"process {rank} of {size}"
        self._key, self._beat = f"{prefix}/failure", f"{prefix}/beat"
        self._watched = list(range(size)) if rank == 0 else [0]
        self._looks = max(2, round(min(timeout_s, _SILENCE_S) / _INTERVAL_S))
        self._threads = NativeThreads()
        self._over = self._threads.over
        self._answered = threading.Event()
        for target in (self._watch, self._watch_the_watch):
            self._threads.start(target, "alarm")

    def stop(self) -> None:
        """Stop watching: the run has ended well, for all."""
        self._threads.stop()

    def raise_alarm(self, error: BaseException) -> Failure:
        """Write down that this process failed, unless another one did before; returns the first failure.

        It is this one's as far as it can know if the store does not answer within seconds.
        """
        own = Failure(self._rank, exit_code(error))
        first = own

        def write() -> None:
            nonlocal first
            with suppress(RuntimeError):  # the store is gone
                first = self._write(self._connect(), own)

        writer = NativeThreads()
        writer.start(write, "alarm writer")
        writer.stop(_PATIENCE_S / 3)  # a cut line would block it for many minutes
        return first

    def _connect(self) -> TCPStore:
        """A connection of its own: on a shared one a thread would wait for the other's answer."""
        return TCPStore(*self._address, is_master=False, timeout=timedelta(seconds=_PATIENCE_S))

    def _write(self, store: TCPStore, failure: Failure) -> Failure:
        """Write down a failure unless there is one; returns the one that is there then."""
        return Failure(**json.loads(store.compare_set(self._key, "", json.dumps(asdict(failure)))))

    def _watch(self) -> None:
        try:
            failure = self._wait_for_failure()
        except RuntimeError:  # the store is gone
            self._end(EXIT_FAILED, self._lost())
            return
        if failure:
            kind = _KINDS.get(failure.code, "failure")
            self._end(failure.code, f"process {failure.rank} failed (exit code {failure.code}: {kind}).")

    def _wait_for_failure(self) -> Failure | None:
        """Returns the first failure, or None when the run has ended well."""
        store, silence = self._connect(), Silence(len(self._watched), self._looks)
        watched = [f"{self._beat}/{rank}" for rank in self._watched]
        for key in watched:
            store.add(key, 0)  # else it would be waited for
        while not self._over.wait(_INTERVAL_S):
            store.add(f"{self._beat}/{self._rank}", 1)
            for silent in silence.look(store.multi_get(watched)):
                self._tell_of_silence(store, self._watched[silent])
            if store.check([self._key]):
                return Failure(**json.loads(store.get(self._key)))
            self._answered.set()
        return None

    def _tell_of_silence(self, store: TCPStore, rank: int) -> None:
        found = Failure(rank, EXIT_FAILED)
        if not store.check([self._key]) and self._write(store, found) == found:
            seconds = round(self._looks * _INTERVAL_S)
            _say(
                f"process {rank} has given no sign of life for {seconds} s: it was killed, or its machine failed or "
                f"cannot be reached. {AGAIN}"
            )

    def _watch_the_watch(self) -> None:
        unanswered = 0
        while not self._over.wait(_INTERVAL_S):
            unanswered = 0 if self._answered.is_set() else unanswered + 1
            self._answered.clear()
            if unanswered >= self._looks:
                self._end(EXIT_FAILED, self._lost())

    def _lost(self) -> str:
        host, port = self._address
        return f"contact was lost with {host}:{port}, where the run's processes meet. {AGAIN}"

    def _end(self, code: int, reason: str) -> None:
        """End the process, unless it ends by itself soon."""
        if not self._over.wait(_PATIENCE_S):
            _say(f"{self._name} is ended: {reason}")
            end_at_once(code)


def _say(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
