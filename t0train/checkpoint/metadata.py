"""torch's index of a checkpoint (`state/.metadata`), read without executing anything.

The index is a pickle, and torch unpickles it: whoever wrote the file can run code with that. Here a pickle may name the
classes that checkpoints of t0train consist of and nothing else. It gets stand-ins for them, which only hold what they
are given; torch's own objects are made from values that were checked.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

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
