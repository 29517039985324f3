"""Fill tensors from a checkpoint's `state/`, by torch's reader, which sees nothing that was not checked before.

The pickle `.metadata` is read by an unpickler that knows only the classes of our own file: nothing in it can run.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.tensor import DTensor

from t0train.checkpoint.manifest import STATE
from t0train.core.errors import UserError

_DCP = "torch.distributed.checkpoint"
_CLASSES = {
    f"{_DCP}.metadata": {
        "Metadata",
        "TensorStorageMetadata",
        "TensorProperties",
        "ChunkStorageMetadata",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    f"{_DCP}.filesystem": {"_StorageInfo"},
    "builtins": {"getattr"},  # how Python 3.11.2 (Debian 12) writes a member of an enumeration; a stand-in, as all here
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},  # their module in Python 3.13
}
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class _StandIn:
    """What an object of the pickle becomes: its arguments, and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self.path = path
        self.known: dict[str, type[_StandIn]] = {}  # own ones for each file: a pickle can set attributes of classes

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if name not in _CLASSES.get(module, ()):
            raise UserError(
                f"{self.path} names {module}.{name}, which no checkpoint of t0train needs: whoever made this file may "
                "want code of theirs to run on your machine. It was not opened; do not load this checkpoint with "
                "other programs either."
            )
        return self.known.setdefault(name, type(name, (_StandIn,), {}))

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def read_metadata(state: Path) -> Metadata:
    """The index of a checkpoint's tensors: their shapes and types, and where in which file their parts are.

    Args:
        state: the checkpoint's `state/`.

    Raises:
        UserError: the file names other classes, is damaged, or points outside of the checkpoint.
    """
    path = state / ".metadata"
    try:
        with path.open("rb") as file:
            root = _Unpickler(file, path).load()
        return _Builder(state, path).metadata(root)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}).") from error


class _Builder:
    """Makes torch's objects from stand-ins, and refuses what t0train does not write."""

    def __init__(self, state: Path, path: Path) -> None:
        self.state, self.path = state, path
        self.sizes: dict[str, int] = {}

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.path} is damaged, or of another program: {reason}.")

    def fields(self, value: Any, kind: str, *names: str) -> Iterator[Any]:
        """The named fields of a stand-in for `kind`; what a file does not say is None."""
        if type(value).__name__ != kind or not isinstance(value, _StandIn) or not isinstance(value.state, dict):
            self.refuse(f"it holds a {type(value).__name__} where {kind} is expected")
        return iter([value.state.get(name) for name in names])

    def metadata(self, root: Any) -> Metadata:
        tensors, storage = self.fields(root, "Metadata", "state_dict_metadata", "storage_data")
        if not isinstance(tensors, dict) or not isinstance(storage, dict):
            self.refuse("it has no tables of tensors and of their places")
        described: dict[str, STORAGE_TYPES] = {
            self.check(name, str): self.tensor(name, value) for name, value in tensors.items()
        }
        places = dict(self.place(index, info) for index, info in storage.items())
        for name, tensor in described.items():
            assert isinstance(tensor, TensorStorageMetadata)
            for chunk in tensor.chunks:
                found = places.get(MetadataIndex(name, chunk.offsets))
                if found is None or found.length < math.prod(chunk.sizes) * tensor.properties.dtype.itemsize:
                    self.refuse(f"{name} at {list(chunk.offsets)} is not in its files as a whole")
        return Metadata(described, storage_data=places, storage_meta=StorageMeta())

    def tensor(self, name: str, value: Any) -> TensorStorageMetadata:
        properties, size, chunks = self.fields(value, "TensorStorageMetadata", "properties", "size", "chunks")
        whole = self.size(size)
        parts = [self.chunk(name, chunk, whole) for chunk in self.check(chunks, list)]
        if sum(math.prod(part.sizes) for part in parts) != math.prod(whole):
            self.refuse(f"the parts of {name} are not the whole of it")
        state = getattr(properties, "state", None)
        dtype = state[0] if type(properties).__name__ == "TensorProperties" and isinstance(state, tuple) else None
        return TensorStorageMetadata(TensorProperties(self.check(dtype, torch.dtype)), whole, parts)

    def chunk(self, name: str, value: Any, whole: torch.Size) -> ChunkStorageMetadata:
        offsets, sizes = map(self.size, self.fields(value, "ChunkStorageMetadata", "offsets", "sizes"))
        if not len(offsets) == len(sizes) == len(whole) or any(
            start + size > end for start, size, end in zip(offsets, sizes, whole, strict=True)
        ):
            self.refuse(f"a part of {name} is not within it")
        return ChunkStorageMetadata(offsets, sizes)

    def place(self, index: Any, info: Any) -> tuple[MetadataIndex, _StorageInfo]:
        name, offset, number = self.fields(index, "MetadataIndex", "fqn", "offset", "index")
        file, start, length, transforms = self.fields(
            info, "_StorageInfo", "relative_path", "offset", "length", "transform_descriptors"
        )
        self.check(file, str)
        if PurePosixPath(file).name != file or not (self.state / file).is_file():
            self.refuse(f"it names {file!r}, which is no file of {self.state}")
        size = self.sizes.setdefault(file, (self.state / file).stat().st_size)
        if self.whole(start) + self.whole(length) > size:
            self.refuse(f"it reads beyond the end of {file}")
        if transforms:
            self.refuse(f"it has {file} decoded by {transforms!r}")
        if number is not None:
            self.whole(number)
        return MetadataIndex(self.check(name, str), self.size(offset), number), _StorageInfo(file, start, length)

    def size(self, value: Any) -> torch.Size:
        found = value.arguments[0] if type(value).__name__ == "Size" and value.arguments else None
        return torch.Size([self.whole(one) for one in self.check(found, tuple)])

    def whole(self, value: Any) -> int:
        number: int = self.check(value, int)
        return number if 0 <= number < 2**62 else self.refuse(f"{number} is no size")

    def check(self, value: Any, kind: Callable[..., Any]) -> Any:
        if type(value) is not kind:
            self.refuse(f"it holds a {type(value).__name__} where a {getattr(kind, '__name__', kind)} is expected")
        return value


class _CheckedReader(FileSystemReader):
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
            state_dict_loader.load(state, storage_reader=_CheckedReader(path / STATE), no_dist=True)
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
