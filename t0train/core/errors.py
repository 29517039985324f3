"""Errors that a user can act on, and the suggestion that goes with a misspelt name."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 85
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Bad input. The message says what was found, what was expected and what to change.

    The command line prints it without a traceback and exits with `EXIT_BAD_INPUT`.
    """


class PreemptedError(Exception):
    """The run received a stop signal, has written a checkpoint, and can be resumed (exit `EXIT_PREEMPTED`)."""


class QuietError(Exception):
    """This process of several ends with `code`; another one of them says why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"another process of the run says why it ends with code {code}")
        self.code = code


class LostContactError(Exception):
    """Other processes of the run do not answer any more. Nothing is wrong with the input: the run can be resumed."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """A sentence that names the known spellings closest to `name`, or lists a few of them."""
    options = sorted(set(known))
    close = difflib.get_close_matches(name, options, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(option) for option in close) + "?"
    if not options:
        return "there is none."
    shown = ", ".join(repr(option) for option in options[:12])
    return f"known: {shown}{', ...' if len(options) > 12 else '.'}"


_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be larger than the file system or the process's limit allows; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission was denied; choose a folder that you may write to",
    errno.EPERM: "the operation is not permitted; choose a folder that you may write to",
    errno.ENOENT: "a folder of that path does not exist and cannot be created; choose another path",
    errno.ENAMETOOLONG: "that name is too long for the file system; choose a shorter one",
    errno.ELOOP: "it is a symbolic link, which could lead anywhere; put a plain file there",
    errno.ENXIO: "it is no plain file; remove it",
    errno.ENOTDIR: "a part of that path is a file, not a folder",
}


@contextmanager
def explain_os_errors(action: str, path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, read-only, ...) into a `UserError` about `path`.

    Libraries written in Rust (safetensors, tokenizers) report them in exceptions of their own, by their number.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _number_in(str(error))
        reason = _REASONS.get(number or 0)
        if reason is None:
            raise
        raise UserError(f"cannot {action} {path}: {reason}.") from error


def _number_in(message: str) -> int | None:
    found = re.search(r"\(os error ([0-9]+)\)", message)
    return int(found[1]) if found else None
