"""Fill tensors from a checkpoint's `state/`, by torch's reader, which sees nothing that was not checked before."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.tensor import DTensor

from t0train.checkpoint.manifest import STATE
from t0train.checkpoint.metadata import read_metadata
from t0train.core.errors import UserError


class _Reader(FileSystemReader):
    """torch's reader with an index that was checked. It reads tensors alone, and these with `weights_only`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.checked = read_metadata(folder)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.checked

    def _slice_file(self, file: Any, sinfo: _StorageInfo) -> IO[bytes]:
        with zipfile.ZipFile(_Slice(file, sinfo.offset, sinfo.length)) as content:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in content.infolist()):
                raise UserError(
                    f"{self.path}/{sinfo.relative_path} holds compressed tensors, which t0train never writes: a small "
                    "file could fill the memory."
                )
        return super()._slice_file(file, sinfo)


class _Slice(io.RawIOBase):
    """A part of a file as a file (torch's own view mistakes positions that are counted from the end)."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self.file, self.start, self.length, self.position = file, start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence])
        return self.position

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.position)
        data = self.file.read(max(0, min(len(buffer), self.length - self.position)))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def read_state(path: Path, state: dict[str, Any]) -> None:
    """Fill `state` from a checkpoint that `read_manifest` has checked, on however many processes it was written.

    Args:
        path: the checkpoint.
        state: parameters under `model`, and perhaps optimizer state under `optimizer`, by name, whole or in parts
            (DTensors), as `Engine.state` gives it under any strategy.

    Raises:
        UserError: the checkpoint is of another model or optimizer, damaged, would run code, or holds values that are
            not finite.
    """
    try:
        with explain_dcp_errors():
            state_dict_loader.load(state, storage_reader=_Reader(path / STATE), no_dist=True)
    except UserError:
        raise
    except Exception as error:  # of the readers of damaged files, and of the plan for another model
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"checkpoint {path} cannot be read into this model or optimizer: {lines[-1]}") from error
    if bad := first_non_finite(state):
        raise UserError(f"checkpoint {path} holds infinite or undefined values in {bad}; choose an earlier one.")


@torch.no_grad()
def first_non_finite(state: Mapping[str, Any]) -> str:
    """The dotted name of the first tensor with an infinite or undefined value in this process's part; empty if none."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            if inner := first_non_finite(value):
                return f"{name}.{inner}"
            continue
        part: Tensor = value.to_local() if isinstance(value, DTensor) else value
        # the extremes take no memory, and are undefined if any value is
        if part.is_floating_point() and part.numel() and not torch.stack(part.aminmax()).isfinite().all():
            return name
    return ""


@contextmanager
def explain_dcp_errors() -> Iterator[None]:
    """DCP wraps what went wrong in a `BaseException` of its own, and torch wraps a full disk in a RuntimeError."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        cause: BaseException | None = next(failure for failure, _ in error.failures.values())
        first = cause
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        raise (cause or first or error) from error
