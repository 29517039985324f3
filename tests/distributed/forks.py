"""`t0train ... --nproc N` without the seconds of imports: by forks of a process that has imported everything once.

The server is multiprocessing's forkserver. A launched command is a fork of it that calls the command line's own `main`;
the launcher that works in there is the real one, with its store, environment, signals and waiting. What it starts is no
new interpreter but a fork as well, made before the launcher's store has threads, which takes on the arguments and the
environment that the launcher gives it and calls `main`. Two things differ from a command in a shell: nothing is
imported at the start, and the launcher has less patience with a process that does not end after another was killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

from t0train.cli.main import main
from t0train.distributed import launch

IMPORTED = ("torch._dynamo", "pandas", "t0train.cli.main", "t0train.training")  # by the server; the first two come late
PATIENCE_S = 3.0


class Forked:
    """`t0train ARGUMENTS --nproc PROCESSES` in a process group of its own; to be used like a `subprocess.Popen`."""

    returncode: int | None = None

    def __init__(self, arguments: Sequence[str], processes: int) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # the server's, which must have no threads: a fork has none of them
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        self._said, stderr = context.Pipe(duplex=False)
        self._process = context.Process(target=_command, args=(list(arguments), processes, stderr), daemon=True)
        self._process.start()
        stderr.close()
        assert self._process.pid
        self.pid = self._process.pid
        os.read(self._said.fileno(), 1)  # it has a process group now

    def poll(self) -> int | None:
        self._process.join(0)
        self.returncode = self._process.exitcode
        return self.returncode

    def communicate(self, timeout: float) -> tuple[None, str]:
        """Wait until every process has ended; returns what they wrote to stderr."""
        deadline, said = time.monotonic() + timeout, b""
        while select.select([self._said], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (part := os.read(self._said.fileno(), 1 << 16)):
                self._process.join()
                self.poll()
                return None, said.decode()
            said += part
        os.killpg(self.pid, signal.SIGKILL)
        raise TimeoutError(said.decode())


def _command(arguments: list[str], processes: int, stderr: Connection) -> None:
    """The first fork: the launcher."""
    assert all(name in sys.modules for name in IMPORTED)
    threads = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    assert len([name for name in threads if not name.startswith("jemalloc")]) == 1, threads  # jemalloc knows forks
    os.setsid()
    os.write(stderr.fileno(), b"\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    pipes = [os.pipe() for _ in range(processes)]
    waiting = [_Fork(pipes, rank) for rank in range(processes)]
    stand_in = SimpleNamespace(Popen=lambda command, env: waiting.pop(0).begin(command, env))
    launch.subprocess = stand_in  # type: ignore[assignment, attr-defined]
    launch._PATIENCE_S = PATIENCE_S
    _main([*arguments, "--nproc", str(processes)])


def _main(arguments: Sequence[str]) -> None:
    """The command line, to the end of this process."""
    sys.argv = ["t0train", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Fork:
    """A process that waits for what to run; then what the launcher uses of a `subprocess.Popen`."""

    returncode: int | None = None

    def __init__(self, pipes: Sequence[tuple[int, int]], rank: int) -> None:
        self._tell = pipes[rank][1]
        self.pid = os.fork()
        if self.pid > 0:
            return
        for _, tell in pipes:
            os.close(tell)
        with os.fdopen(pipes[rank][0]) as stream:
            told = stream.read()
        if not told:
            os._exit(1)  # the launcher ended before it started any
        arguments, environment = json.loads(told)
        os.environ.clear()
        os.environ.update(environment)
        _main(arguments)

    def begin(self, command: Sequence[str], environment: dict[str, str]) -> _Fork:
        assert command[:3] == [sys.executable, "-m", "t0train"]
        with os.fdopen(self._tell, "w") as stream:
            json.dump([command[3:], environment], stream)
        return self

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
