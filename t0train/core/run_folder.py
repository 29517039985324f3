"""The files of a run: the only place that knows their names, and which checkpoint is meant where none is named."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t0train.core.errors import UserError, nearest
from t0train.core.files import refuse_linked_folders, write_json

MANIFEST = "manifest.json"
"""Of a checkpoint; written last, so that a checkpoint without it is not complete."""
UNTRAINED = "-untrained"
"""Ending of the folder with a suite's results for the model before training."""
_CHECKPOINTS = "checkpoints"
_STEP = re.compile(r"step-([0-9]{8,15})")


def step_name(step: int) -> str:
    """The name of a step's checkpoint, and of the folder with its results: `step-00000040`."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """The step in a folder's name; None for another name."""
    found = _STEP.fullmatch(path.name)
    return int(found[1]) if found else None


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints below `folder` (`RunFolder.checkpoints`), the newest first."""
    found = [(step, path) for path in folder.glob("step-*/") if (step := step_of(path)) is not None]
    return [path for _, path in sorted(found, reverse=True)]


@dataclass(frozen=True)
class RunFolder:
    """A run folder, of which not all files need exist.

    Attributes:
        path: the folder.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def of(cls, source: str | Path) -> RunFolder | None:
        """The run folder that `source` is, or is a checkpoint of; None for anything else."""
        path = Path(source).expanduser()
        candidates = [path, path.parent.parent] if path.parent.name == _CHECKPOINTS else [path]
        return next((run for run in map(cls, candidates) if run.exists()), None)

    @classmethod
    def require(cls, path: Path) -> RunFolder:
        """The run folder `path`.

        Raises:
            UserError: it is none.
        """
        if not (run := cls(path)).exists():
            raise cls.refusal(path)
        return run

    @classmethod
    def refusal(cls, path: Path) -> UserError:
        """What is said of a path that is no run folder: what was found, or the run folder whose path is nearest."""
        expected = "give the folder that `t0train train` wrote."
        if not path.exists():
            return UserError(f"there is no run folder {path}; {similar_folders(path) or expected}")
        found = f"a folder without {cls(path).config.name}" if path.is_dir() else "a file"
        return UserError(f"{path} is not a run folder ({found}); {expected}")

    def exists(self) -> bool:
        """Whether it is a run folder: whether it holds a resolved configuration."""
        return self.config.is_file()

    @property
    def config(self) -> Path:
        """The run's configuration, every key, paths absolute."""
        return self.path / "config.resolved.yaml"

    @property
    def deviations(self) -> Path:
        """How it differs from T0, in sentences."""
        return self.path / "deviations.json"

    @property
    def events(self) -> Path:
        """The log."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / _CHECKPOINTS

    @property
    def evaluations(self) -> Path:
        """The folder with a folder of results for each suite."""
        return self.path / "eval"

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.path / "report"

    @property
    def _selected(self) -> Path:
        return self.checkpoints / "selected.json"

    def results(self, suite: str, untrained: bool = False, step: int | None = None) -> Path:
        """The folder of a suite's results; those of an older checkpoint than the last lie in a folder of their step."""
        folder = self.evaluations / (suite + UNTRAINED if untrained else suite)
        return folder if step is None else folder / step_name(step)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.checkpoints / step_name(step)

    def list_complete(self) -> list[Path]:
        """The complete checkpoints, the earliest first."""
        return [path for path in reversed(list_checkpoints(self.checkpoints)) if (path / MANIFEST).is_file()]

    def find_checkpoint(self, step: int | None = None) -> Path:
        """The complete checkpoint of a step; without one the selected checkpoint, else the newest.

        Raises:
            UserError: there is no such checkpoint, or none at all.
        """
        complete = self.list_complete()
        if not complete:
            raise UserError(f"{self} has no complete checkpoint yet; train until the first one is written.")
        if step is None:
            step = self.selected_step()
        if step is None:
            return complete[-1]
        wanted = self.checkpoint(step)
        if wanted not in complete:
            steps = ", ".join(map(str, _steps(complete)))
            raise UserError(f"{self} has no complete checkpoint of step {step}; it has {steps}.")
        return wanted

    def select(self, step: int, suite: str) -> None:
        """Record a step as the selected one among the checkpoints of now, until the run goes on."""
        refuse_linked_folders(self.path, self.checkpoints)
        write_json(self._selected, {"step": step, "suite": suite, "compared": _steps(self.list_complete())})

    def selected_step(self) -> int | None:
        """The step that was selected; None if none was, or if the newest checkpoint was not among those compared."""
        try:
            selection = json.loads(self._selected.read_text(encoding="utf-8"))
            step, compared = int(selection["step"]), set(selection["compared"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        there = _steps(self.list_complete())
        return step if there and there[-1] in compared and step in there else None


def similar_folders(missing: Path, marks: Sequence[str] = ()) -> str:
    """A clause that names the run folders whose names are nearest to one that does not exist; empty if there is none.

    Args:
        missing: the path that was given.
        marks: names of files by which other folders next to it count too.
    """
    run, at, step = str(missing).rpartition("@")
    if at and RunFolder(Path(run)).checkpoints.is_dir():
        named = RunFolder(Path(run)).checkpoints / (step_name(int(step)) if step.isdecimal() else "...")
        return f"a checkpoint of a run is named {named}"
    there = next(folder for folder in missing.parents if folder.is_dir())
    wanted = missing.relative_to(there)
    config = RunFolder(Path()).config.name
    patterns = [f"{'*/' * levels}{config}" for levels in range(1, min(len(wanted.parts) + 1, 3) + 1)]
    found = [path.parent for pattern in (*patterns, *(f"*/{mark}" for mark in marks)) for path in there.glob(pattern)]
    names = [str(folder.relative_to(there)) for folder in found if not folder.name.startswith(".")]
    hint = nearest(str(wanted), names) if names else ""
    return hint if not hint or there == Path() else f"in {there}: {hint}"


def _steps(checkpoints: list[Path]) -> list[int]:
    return [step for folder in checkpoints if (step := step_of(folder)) is not None]
