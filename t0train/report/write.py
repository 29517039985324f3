"""Write the report of one run, or the comparison of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from t0train.core.console import say
from t0train.core.errors import UserError
from t0train.core.files import refuse_linked_folders, remove_leftovers, write_atomic
from t0train.core.lock import hold_folder
from t0train.report.page import PageSection, Picture, html, markdown
from t0train.report.run_data import RunData, read_runs
from t0train.report.sections.accuracy import Headline, accuracy_section, every_prompt_section, headlines
from t0train.report.sections.answers import generated_section, mistakes_section, probes_section
from t0train.report.sections.caveats import (
    caveats_section,
    missing_section,
    remarks_section,
    shared_texts_section,
)
from t0train.report.sections.comparison import checkpoints_section, comparison_section, dataset_differences_section
from t0train.report.sections.configuration import deviations_section, runs_section
from t0train.report.sections.published import published_section
from t0train.report.sections.training import packing_section, tasks_section, training_section

_SECTIONS = (
    runs_section,
    accuracy_section,
    comparison_section,
    published_section,
    generated_section,
    dataset_differences_section,
    caveats_section,
    remarks_section,
    shared_texts_section,
    checkpoints_section,
    probes_section,
    mistakes_section,
    missing_section,
    training_section,
    tasks_section,
    packing_section,
    deviations_section,
    every_prompt_section,
)
"""In the order of the page."""


class Report(NamedTuple):
    """A report that was written: the path of its HTML page, and the accuracies in it."""

    page: Path
    headlines: list[Headline]


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
    return build_report(runs, out).page


def build_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Report:
    """As `write_report`, with the accuracies in the report."""
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise UserError("a report needs at least one run folder.")
    out = Path(out) if out else (folders[0] if len(folders) == 1 else folders[0].resolve().parent) / "report"
    found = read_runs(folders)
    for run in folders:
        if run in out.parents:
            refuse_linked_folders(run, out)
    title = "Report on " + " and ".join(run.name for run in found)
    sections = build_sections(found)
    with hold_folder(out, f"writing a report into {out}", say):
        remove_leftovers(out, exclusive=True)
        for part in (part for section in sections for part in section.parts):
            if isinstance(part, Picture):
                write_atomic(out / f"{part.name}.svg", part.svg)
                write_atomic(out / f"{part.name}.png", part.png)
        write_atomic(out / "report.md", markdown(title, sections))
        write_atomic(out / "report.html", html(title, sections))
    return Report(out / "report.html", headlines(found))


def build_sections(runs: Sequence[RunData]) -> list[PageSection]:
    """All sections of the report on these runs that have anything to say."""
    return [section for section in (build(runs) for build in _SECTIONS) if section.parts]
