"""The tensors of a folder in Hugging Face's layout: which files hold them, and what is refused before one is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from t0train.core.errors import UserError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_ORDER = (_SINGLE, _INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""As transformers takes them: a folder may hold files of an earlier save, and both must read the same ones."""
_NUMBERED = re.compile(r".*-(?P<number>\d{5})-of-(?P<total>\d{5})\.(safetensors|bin)")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LARGEST_HEADER = 16 << 20  # bytes; T5-XXL's tensors need a hundred thousand


def map_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every tensor of a folder in Hugging Face's layout.

    The files are mapped into memory: a tensor is read when it is used, and its pages are the system's to drop.

    Raises:
        UserError: no weights, missing shards or shards that do not belong together, a damaged file, numbers that are
            not floating-point.
    """
    files, places = _weight_files(folder)
    for file in files:
        for name, tensor in _tensors_of(file):
            if places and places.get(name) != file.name:
                raise UserError(
                    f"{file} holds {name}, but the index of {folder} has it "
                    f"{f'in {places[name]}' if name in places else 'in no file'}; the files are of different saves. "
                    "Save the model again into an empty folder."
                )
            yield name, _checked(file, name, tensor)


def unread_files(folder: Path) -> tuple[str, ...]:
    """Names of the folder's other files with weights, which `map_tensors` passes over as transformers does."""
    files, _ = _weight_files(folder)
    first = next(name for name in _ORDER if (folder / name).is_file())
    return tuple(sorted(_weights_in(folder) - {file.name for file in files} - {first}))


def _weights_in(folder: Path) -> set[str]:
    """Names of all files that hold or list weights, of whatever save or variant."""
    patterns = ("*.safetensors", "pytorch_model*.bin", "*.safetensors.index.json", "*.bin.index.json")
    return {file.name for pattern in patterns for file in folder.glob(pattern)}


def _weight_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files to read, and for each tensor the file that the index has it in (empty without an index)."""
    for name in _ORDER:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            return [path], {}
        places = _read_index(path)
        shards = sorted(set(places.values()))
        if absent := [shard for shard in shards if not (folder / shard).is_file()]:
            raise UserError(f"{folder} lacks {len(absent)} of {len(shards)} weight files, the first is {absent[0]}.")
        return [folder / shard for shard in shards], places
    others = sorted(name for name in _weights_in(folder) if not name.endswith(".json"))
    raise UserError(
        f"{folder} has a config.json but no weights: expected {_SINGLE}, pytorch_model.bin or their index"
        + (f"; found {', '.join(others[:3])}, which no index lists (rename the file that is meant)." if others else ".")
    )


def _read_index(path: Path) -> dict[str, str]:
    """For each tensor its file. Files outside the folder, and shards of more than one save, are refused."""
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
            raise ValueError("`weight_map` gives a file name for each tensor")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        detail = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is no index of weight files: {detail}.") from error
    for shard in sorted(set(places.values())):
        if len(PurePosixPath(shard).parts) != 1 or shard == ".." or "\\" in shard or "\0" in shard:
            raise UserError(f"{path} names the file {shard!r}; weights lie in the folder of their index itself.")
        if not shard.endswith((".safetensors", ".bin")):
            raise UserError(f"{path} names the file {shard!r}; expected .safetensors or .bin.")
    numbered = [found for shard in set(places.values()) if (found := _NUMBERED.fullmatch(shard))]
    totals = sorted({int(found["total"]) for found in numbered})
    if len(totals) > 1 or (totals and len({found["number"] for found in numbered}) != totals[0]):
        raise UserError(
            f"{path} lists {len(numbered)} numbered files, but their names speak of {' and '.join(map(str, totals))}; "
            "they are of different saves, or the index is not whole. Get the original folder."
        )
    return places


def _tensors_of(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            _check_header(file)
            with safe_open(str(file), framework="pt") as content:
                for name in content.keys():  # noqa: SIM118 (no mapping)
                    yield name, content.get_tensor(name)
        else:
            yield from _flat(file, _unpickled(file)).items()
    except UserError:
        raise
    except Exception as error:  # the readers raise a wide range of errors for damaged files
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{file} is damaged or no weights file ({type(error).__name__}: {reason}).") from error


def _check_header(file: Path) -> None:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if length > min(_LARGEST_HEADER, file.stat().st_size):
        raise UserError(f"{file} is damaged or no weights file: its header would take {length:,} bytes.")


def _unpickled(file: Path) -> Any:
    """What torch's reader makes of a .bin file; it allows tensors and plain containers, and runs nothing."""
    from pickle import UnpicklingError

    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # files from before torch 1.6 cannot be mapped
                raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{file} is damaged or no weights file: it is a pickle with {found[1] if found else 'something'} in it, "
            "and only tensors are read, as anything else can run code. Save the model's state_dict() alone, best as "
            "safetensors."
        ) from error


def _flat(file: Path, content: Any) -> dict[str, Tensor]:
    """The content of a .bin file if it is names and tensors; checkpoints of training programs hold more."""
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{file} holds {_kind(content)}, but names with their tensors (a state dict) are expected.")
    wrong = [str(name) for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if not wrong:
        return dict(content)
    inner = [str(name) for name, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
    advice = f"; save what is under {inner[0]!r} alone" if inner else ""
    raise UserError(
        f"{file} is no plain state dict: {', '.join(map(repr, wrong[:4]))}{', ...' if len(wrong) > 4 else ''} "
        f"{'is no tensor' if len(wrong) == 1 else 'are no tensors'}, as in the checkpoint of a training program"
        f"{advice}. Names with their tensors at the top level are expected."
    )


def _has_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(inner, Tensor) for inner in value.values())


def _kind(value: Any) -> str:
    return "nothing" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _checked(file: Path, name: str, tensor: Tensor) -> Tensor:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_quantized or tensor.dtype not in _FLOATS:
        raise UserError(
            f"{file}: {name} is {kind}; quantised weights cannot be trained or evaluated here. Get the original ones, "
            "in float32, bfloat16 or float16."
        )
    if tensor.layout != torch.strided or tensor.is_meta:
        raise UserError(f"{file}: {name} is a {tensor.layout if not tensor.is_meta else 'meta'} tensor; save it dense.")
    return tensor.detach()
