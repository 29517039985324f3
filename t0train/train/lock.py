"""One trainer in a run folder at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t0train.core.files import make_folder
from t0train.core.lock import hold_lock


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Make the run folder and hold it for this process.

    A folder that was made for a run that could not begin is removed again.

    Raises:
        UserError: another process trains in it, or it cannot be written to.
    """
    is_new = not folder.exists()
    make_folder(folder)
    path = folder / ".lock"
    with hold_lock(path, f"training in {folder} (another `output` or `name` gives a run its own folder)"):
        try:
            yield
        finally:
            if is_new and os.listdir(folder) == [path.name]:
                path.unlink()
                folder.rmdir()
