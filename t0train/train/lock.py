"""One trainer in a run folder at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from t0train.core.lock import hold_folder


def run_lock(folder: Path) -> AbstractContextManager[None]:
    """Make the run folder and hold it for this process.

    A folder that was made for a run that could not begin is removed again.

    Raises:
        UserError: another process trains in it, or it cannot be written to.
    """
    return hold_folder(folder, f"training in {folder} (another `output` or `name` gives a run its own folder)")
