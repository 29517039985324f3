"""Writes that either happen whole or not at all, and the folders that t0train uses by default."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from t0train.core.errors import UserError, explain_os_errors


def cache_folder() -> Path:
    """`$T0TRAIN_CACHE`, else `$XDG_CACHE_HOME/t0train`, else `~/.cache/t0train`."""
    if explicit := os.environ.get("T0TRAIN_CACHE"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "t0train"


def file_state(path: Path) -> tuple[int, int, int, int]:
    """What tells a file from the one that was there before: size, inode, times of the last write and of any change.

    The last of them cannot be set by programs, so it also tells a file of the same size whose time was put back.
    """
    status = path.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush every file below `folder`, then the folders themselves."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync(Path(parent, name))
        fsync(Path(parent))


def make_folder(folder: Path) -> Path:
    """Create `folder` (and its parents) and prove that it can be written to.

    Raises:
        UserError: full disk, read-only file system, missing permission, or a file in the way.
    """
    with explain_os_errors("write to", folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file, but a folder is needed there; choose another path.")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def prove_renames(folder: Path) -> None:
    """Prove that a folder can be renamed within `folder`: what `atomic_folder` relies on.

    Raises:
        UserError: the file system cannot do it, as some mounts of object stores cannot.
    """
    with explain_os_errors("write to", folder):
        before = work_folder(folder / "rename", ".tmp")
        after = before.with_suffix(".new")
        (before / "inner").mkdir()
    try:
        os.replace(before, after)
        is_whole = (after / "inner").is_dir() and not before.exists()
    except OSError:
        is_whole = False
    finally:
        shutil.rmtree(before, ignore_errors=True)
        shutil.rmtree(after, ignore_errors=True)
    if not is_whole:
        raise UserError(
            f"the file system of {folder} does not rename folders as a whole, so a checkpoint could be left half "
            "written; choose an `output` on another file system (a local disk, NFS, Lustre)."
        )


def _umask() -> int:
    """The process's file mode mask: temporary files are private, what they become should not be."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new one, even after a crash."""
    data = content.encode() if isinstance(content, str) else content
    with explain_os_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_work_prefix(path), suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        fsync(path.parent)


def open_to_append(path: Path) -> TextIO:
    """Open a text file, a new one if there is none, to write at its end.

    Raises:
        UserError: the file cannot be written to, or is a symbolic link: in a folder of somebody else's it could lead
            to any file of the user.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no wait for a pipe
    with explain_os_errors("write to", path):
        return os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8")


def refuse_linked_folders(root: Path, folder: Path) -> None:
    """Refuse to write into `folder`, a folder below `root`, if a folder on the way to it or in it is a symbolic link.

    Who received `root` from somebody else cannot know where its links lead. `root` itself may be a link: the user
    named it.

    Raises:
        UserError: names the link.
    """
    way = [folder, *folder.parents][: len(folder.relative_to(root).parts)]
    inner = (Path(parent, name) for parent, names, _ in os.walk(folder) for name in names)
    for path in (*reversed(way), *inner):
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link, and nothing is written through links within {root}, as they could lead "
                "anywhere: put a plain folder there, or choose another output folder."
            )


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of `value` as indented JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: Path, ours: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder next to `path` that becomes `path` if the block succeeds and vanishes if it does not.

    Everything in it is flushed to the disk before the rename. What killed processes left next to `path` is removed.

    Args:
        path: the folder that is to come into being.
        ours: names of files or folders by which an earlier result is known: a folder at `path` that holds one of them
            is replaced, also if another process replaces it at the same moment (the last one stays).

    Raises:
        UserError: `path` is a file, a symbolic link, or a folder with other content; nothing there is touched.
    """
    path = Path(os.path.abspath(path))  # "." has a name then
    with explain_os_errors("write", path):
        refuse_foreign(path, ours)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = work_folder(path, ".tmp")
        temporary.chmod(0o777 & ~_umask())
        try:
            yield temporary
            fsync_tree(temporary)
            _replace_folder(temporary, path, ours)
            fsync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_folder(path: Path) -> None:
    """Remove a folder so that a crash does not leave half of it under its name."""
    doomed = work_folder(path, ".old")
    try:
        os.replace(path, doomed / path.name)
    finally:
        shutil.rmtree(doomed, ignore_errors=True)


def refuse_foreign(path: Path, ours: Collection[str] = ()) -> None:
    """Refuse what `atomic_folder` would not replace: a file, a link, a folder with other content; see there."""
    with explain_os_errors("write", path), suppress(FileNotFoundError):
        there = path.lstat()
        if not stat.S_ISDIR(there.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(there.st_mode) else "a file"
            raise UserError(f"{path} is {kind}, but a folder is to be written there; choose another path.")
        names = sorted(os.listdir(path))
        if path.lstat().st_ino != there.st_ino:  # another process replaced it; it was listed while it was removed
            return
        if names and not set(ours).intersection(names):
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise UserError(f"{path} exists and is not empty ({listed}); choose a new folder.")


def _replace_folder(new: Path, path: Path, ours: Collection[str]) -> None:
    """Rename `new` to `path`; a folder there is moved away first, as often as another process puts one there."""
    for _ in range(100):
        try:
            os.rename(new, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        refuse_foreign(path, ours)
        with suppress(FileNotFoundError):  # another process was faster
            remove_folder(path)
    raise UserError(f"cannot write {path}: other processes replace it again and again; end them.")


def work_folder(path: Path, suffix: str) -> Path:
    """A new private folder next to `path` whose name says whose it is, so that `remove_leftovers` finds it."""
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=_work_prefix(path), suffix=suffix))


def _work_prefix(path: Path) -> str:
    return f".{path.name[:100]}.{_machine()}-{os.getpid()}."


@cache
def _machine() -> str:
    """Tells machines, and the containers of one, apart: process ids mean something within one alone."""
    parts = [platform.node()]
    for link in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(link) if link.endswith("pid") else Path(link).read_text())
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8]


_WORK = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)\.[^.]+\.(tmp|old|new)", re.DOTALL)
_ABANDONED_S = 24 * 3600  # without a change, for what another machine began


def remove_leftovers(folder: Path, exclusive: bool = False) -> None:
    """Remove what processes that are gone left half-written in `folder`: work files and folders of this module.

    Args:
        folder: the folder; nothing happens if there is none.
        exclusive: no other process may be at work in it, as its lock is held: everything is a leftover. Otherwise
            another machine's work, of which nothing can be known, is left alone until it is a day old.
    """
    for entry in _entries(folder):
        found = _WORK.fullmatch(entry.name)
        if found is None or (not exclusive and _is_at_work(entry, found)):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(entry.path)


@cache
def _sweep_once(folder: Path) -> None:
    """`remove_leftovers` at the first write into a folder: a look at every write would cost more than it brings."""
    remove_leftovers(folder)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_at_work(entry: os.DirEntry[str], owner: re.Match[str]) -> bool:
    process = int(owner["process"])
    if owner["machine"] != _machine():
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime < _ABANDONED_S
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
