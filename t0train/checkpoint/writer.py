"""Checkpoints are written whole or not at all, and the newest few kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from t0train.checkpoint.manifest import (
    LATEST,
    MODEL,
    STATE,
    Manifest,
    is_temporary,
)
from t0train.checkpoint.reader import explain_dcp_errors
from t0train.config.architecture import T5Config
from t0train.core.errors import UserError, explain_os_errors
from t0train.core.files import atomic_folder, remove_folder, write_atomic, write_json
from t0train.core.hashing import content_hash, file_sha256
from t0train.core.run_folder import MANIFEST, list_checkpoints, step_name, step_of

T = TypeVar("T")


class Processes(Protocol):
    """What a checkpoint needs to know of the processes that write it together: `t0train.distributed.World`."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def is_first(self) -> bool: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def group(self) -> ProcessGroup | None: ...  # noqa: D102
    @property
    def background(self) -> Processes: ...  # noqa: D102
    def together(self, function: Callable[[], T]) -> list[T]: ...  # noqa: D102
    def from_first(self, function: Callable[[], T]) -> T: ...  # noqa: D102


class CheckpointWriter:
    """Writes checkpoints below `folder`, by all processes of the run together, and removes those that need not stay.

    The newest `keep` regular ones stay, regular ones at multiples of `keep_every`, and the newest one of all. So a
    temporary checkpoint (see `Manifest`) goes when the next one is complete, of whatever kind that is.

    A crash at any moment leaves the earlier checkpoints and no half-written one. Asynchronous, `start` copies the state
    to host memory and a thread does the rest; there is one at a time.

    Args:
        folder: `<run>/checkpoints`, which every process sees.
        keep: how many regular checkpoints are kept.
        world: the processes.
        asynchronous: whether `start` returns before the checkpoint is written.
        keep_every: steps between checkpoints that are never removed; None for none of that kind.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        world: Processes,
        asynchronous: bool = False,
        keep_every: int | None = None,
    ) -> None:
        self.folder, self.keep, self.world, self.asynchronous = folder, keep, world, asynchronous
        self.keep_every = keep_every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=self._use_own_gpu)
        self._pending: Future[Path] | None = None

    def _use_own_gpu(self) -> None:
        """A new thread's GPU is the first one, on which every process would take memory."""
        if self.world.device.type == "cuda":
            torch.cuda.set_device(self.world.device)

    def start(self, state: dict[str, Any], config: T5Config, manifest: Manifest) -> None:
        """Write the checkpoint of a step, after the one before it is complete.

        Args:
            state: parameters under `model` and optimizer state under `optimizer`, see `Engine.state`.
            config: the model's architecture.
            manifest: what the checkpoint says about itself.

        Raises:
            UserError: the disk is full or read-only; earlier checkpoints are as they were.
        """
        self.finish()
        if self.asynchronous:
            stager = DefaultStager(StagingOptions(False, False, False, False))
            copied = stager.stage(state)
            assert isinstance(copied, dict)  # a future only with other options
            self._pending = self._thread.submit(self._write, copied, config, manifest, self.world.background)
        else:
            self._pending = Future()
            self._pending.set_result(self._write(state, config, manifest, self.world))

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        return self.folder / step_name(step)

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint of this process is still being written."""
        return self._pending is not None and not self._pending.done()

    def finish(self, wait: bool = True) -> Path | None:
        """The checkpoint that has become complete since the last call, if there is one; `wait` for it if it is coming.

        Raises:
            UserError: it could not be written.
        """
        if self._pending is None or not (wait or self._pending.done()):
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def _write(self, state: dict[str, Any], config: T5Config, manifest: Manifest, world: Processes) -> Path:
        path = self.path(manifest.step)
        with atomic_folder(path, ours=[STATE, MODEL, MANIFEST]) if world.is_first else nullcontext(path) as own:
            temporary = world.from_first(lambda: own)
            with explain_os_errors("write", path), explain_dcp_errors():
                state_dict_saver.save(
                    state, checkpoint_id=temporary / STATE, process_group=world.group, no_dist=world.group is None
                )
            checksums = world.together(lambda: _checksums(temporary, world))
            if world.is_first:
                write_json(temporary / MODEL, config.to_json())
                files = {name: checksum for part in checksums for name, checksum in part.items()}
                files[MODEL] = file_sha256(temporary / MODEL)
                content = {**asdict(manifest), "files": dict(sorted(files.items()))}
                write_json(temporary / MANIFEST, {**content, "checksum": content_hash(content)})
        world.from_first(lambda: self._announce(path))
        return path

    def _announce(self, path: Path) -> None:
        write_atomic(self.folder / LATEST, path.name + "\n")
        for old in self._needless():
            remove_folder(old)

    def _needless(self) -> list[Path]:
        _, *older = found = list_checkpoints(self.folder)
        temporary = [path for path in found if is_temporary(path)]
        regular = [path for path in found if path not in temporary]
        surplus = [path for path in regular[self.keep :] if not self._stays(path)]
        return [path for path in older if path in temporary or path in surplus]

    def _stays(self, path: Path) -> bool:
        step = step_of(path)
        return step is not None and self.keep_every is not None and step % self.keep_every == 0


def set_aside(path: Path) -> Path:
    """Rename a checkpoint so that it no longer counts as one, but can still be looked at."""
    for number in range(1000):
        aside = path.with_name(f"aside-{path.name}" + (f".{number}" if number else ""))
        if not aside.exists():
            os.replace(path, aside)
            return aside
    raise UserError(f"{path.parent} holds a thousand copies of {path.name} that were set aside; remove some.")


def _checksums(folder: Path, world: Processes) -> dict[str, str]:
    """SHA-256 of this process's share of the files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file_sha256(file) for file in files[world.rank :: world.size]}
