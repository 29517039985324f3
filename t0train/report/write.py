"""Write the report of one run, or the comparison of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t0train.core.errors import UserError
from t0train.core.files import refuse_linked_folders, remove_leftovers, write_atomic
from t0train.core.lock import hold_folder
from t0train.core.progress import say
from t0train.report.content import build
from t0train.report.page import html, markdown
from t0train.report.parts import Picture
from t0train.report.runs import read_runs


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write `report.md` with its figures (PNG and SVG) and the self-contained `report.html` into `out`.

    Args:
        runs: a run folder, or several, which are compared in this order.
        out: folder for the report, created if need be; default: `report` in the run folder, or for several in the
            folder that the first one is in.

    Returns:
        The path of `report.html`.

    Raises:
        UserError: not a run folder, a damaged file in it, a folder that cannot be written to, or one in a run folder
            that is a symbolic link.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise UserError("a report needs at least one run folder.")
    out = Path(out) if out else (folders[0] if len(folders) == 1 else folders[0].resolve().parent) / "report"
    found = read_runs(folders)
    for run in folders:
        if run in out.parents:
            refuse_linked_folders(run, out)
    title = "Report on " + " and ".join(run.name for run in found)
    sections = build(found)
    with hold_folder(out, f"writing a report into {out}", say):
        remove_leftovers(out, exclusive=True)
        for part in (part for section in sections for part in section.parts):
            if isinstance(part, Picture):
                write_atomic(out / f"{part.name}.svg", part.svg)
                write_atomic(out / f"{part.name}.png", part.png)
        write_atomic(out / "report.md", markdown(title, sections))
        write_atomic(out / "report.html", html(title, sections))
    return out / "report.html"
