"""One process at a time in a folder: a lock file that the operating system lets go of however its holder ends."""

from __future__ import annotations

import errno
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from t0train.core.errors import PreemptedError, UserError, explain_os_errors
from t0train.core.files import make_folder
from t0train.core.processes import stop_request

_POLL_S = 0.2


@contextmanager
def hold_lock(
    path: Path,
    purpose: str,
    notify: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file `path` within the block, and wait for it if another process holds it and `notify` is given.

    Where the file system has no `flock`, a marker file with the holder's process id takes its place (filelock's soft
    lock). Otherwise the lock file stays: to remove it would let two waiting processes in at once. Symbolic links are
    not followed.

    Args:
        path: the lock file; its folder exists.
        purpose: what the holder does, to complete "another process ... is".
        notify: takes one sentence if there is somebody to wait for; None refuses instead of waiting.

    Raises:
        UserError: another process holds it and `notify` is None, or the file cannot be written or is a link.
        PreemptedError: a stop signal came while this process waited.
    """
    lock = FileLock(path)
    with explain_os_errors("lock", path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flock not supported")
        try:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                if notify is None:
                    raise UserError(
                        f"another process ({lock_holder(path)}) is {purpose}; wait until it ends, or end it."
                    ) from None
                notify(f"waiting for another process ({lock_holder(path)}), which is {purpose} ...")
                _wait(lock)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UserError(f"{path} is a symbolic link; a lock file must be a plain file: remove it.") from error
            raise
        if not isinstance(lock, SoftFileLock):  # which writes the same two lines itself
            _write_holder(path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def hold_folder(folder: Path, purpose: str, notify: Callable[[str], None] | None = None) -> Iterator[None]:
    """Make a folder and hold the lock file `.lock` in it; arguments as for `hold_lock`.

    Folders that were made and in which nothing was written are removed again.

    Raises:
        UserError: as `hold_lock`, or the folder cannot be written to.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    make_folder(folder)
    path = folder / ".lock"
    with hold_lock(path, purpose, notify):
        try:
            yield
        finally:
            with suppress(OSError):  # another process has put something there, or removed it
                if made and os.listdir(folder) == [path.name]:
                    path.unlink()
                    for parent in made:
                        parent.rmdir()


def _wait(lock: BaseFileLock) -> None:
    try:
        lock.acquire(poll_interval=_POLL_S, cancel_check=lambda: bool(stop_request()))
    except Timeout as error:
        raise PreemptedError(f"{stop_request().signal} received while waiting for another process.") from error


def lock_holder(path: Path) -> str:
    """Who holds a lock file, as far as it says."""
    try:
        process, machine, *_ = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "unknown"
    return f"process {process} on {machine}"


def _write_holder(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_TRUNC), "w", encoding="utf-8") as stream:
        stream.write(f"{os.getpid()}\n{platform.node()}\n")
