"""Where a model's weights are stored: the folder that a name means, its weight files, and their tensors.

A folder in Hugging Face's layout, a model of the hub, a run folder or a checkpoint. What is damaged, incomplete or from
different saves is refused before a tensor is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from t0train.core.errors import UserError
from t0train.core.run_folder import RunFolder, similar_folders

_CONFIG = "config.json"
_TOKENIZER = ("spiece.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json")  # to be compared
_MARKS = (_CONFIG, "model.json")  # of folders that hold a model
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_ORDER = (_SINGLE, _INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In transformers' order: a folder may hold files of an earlier save, and both must read the same ones."""
_NUMBERED = re.compile(r".*-(?P<number>\d{5})-of-(?P<total>\d{5})\.(safetensors|bin)")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LARGEST_HEADER = 16 << 20  # bytes; T5-XXL's header has about a hundred thousand


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a model's files.

    Attributes:
        source: folder that was read.
        loaded: names of the model's tensors, all of which were found.
        copies: tensors that repeat the shared embedding, checked to be equal to it.
        ignored: tensors that T5 does not use.
        tie_word_embeddings: whether the embedding serves as head (T5 1.0).
        unread: files with weights that were skipped, as transformers skips them.
        stored_as: floating-point types of the file.
    """

    source: Path
    loaded: tuple[str, ...]
    copies: tuple[str, ...]
    ignored: tuple[str, ...]
    tie_word_embeddings: bool
    unread: tuple[str, ...] = ()
    stored_as: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = "tied to the embedding, scaled by d_model ** -0.5" if self.tie_word_embeddings else "untied, unscaled"
        parts = [f"{len(self.loaded)} tensors from {self.source}", f"head {head}", "none missing"]
        if self.copies:
            parts.append(f"{len(self.copies)} copies of the embedding")
        if self.ignored:
            parts.append(f"ignored: {', '.join(self.ignored)}")
        if "float16" in self.stored_as:
            parts.append("stored as float16, which keeps 3 digits and nothing below 3e-8")
        if self.unread:
            parts.append(f"not read: {_listed(self.unread)}")
        return "; ".join(parts)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def find_weights(source: str | Path, step: int | None = None) -> Path:
    """The folder of a model: a checkpoint (`model.json`, `state/`) or one in Hugging Face's layout (`config.json`).

    Args:
        source: such a folder, a run folder, or a hub id such as `google/t5-xl-lm-adapt`.
        step: checkpoint of a run folder; if not given, the selected one, else the newest complete one.

    Raises:
        UserError: nothing there, or nothing complete; the hub cannot be reached or does not know the id.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        name = str(source)
        if is_hub_id(name):
            return _from_hub(name)
        hint = similar_folders(folder, _MARKS) or "give a folder, a run folder, or a hub id (owner/name)."
        raise UserError(f"there is no model folder {source}; {hint}")
    if (run_folder := RunFolder(folder)).checkpoints.is_dir():
        return run_folder.find_checkpoint(step)
    if step is not None:
        raise UserError(f"{folder} is no run folder (no checkpoints/ in it): --step {step} means nothing there.")
    if (folder / "adapter_config.json").is_file() and not (folder / _CONFIG).is_file():
        raise UserError(
            f"{folder} holds an adapter (PEFT), no whole model; merge it into its base model and save that."
        )
    if not folder.is_dir() or not any((folder / name).is_file() for name in ("model.json", _CONFIG)):
        raise UserError(
            f"{folder} holds no model: expected config.json with safetensors (Hugging Face), a checkpoint's "
            "model.json, or a run folder with checkpoints/."
        )
    return folder


def is_hub_id(source: str) -> bool:
    """Whether it can be the id of a model of the hub: `owner/name`, neither a folder nor one next to run folders."""
    folder = Path(source).expanduser()
    is_id = re.fullmatch(r"[^/.~][^/]*/[^/]+", source) is not None
    return is_id and not folder.exists() and not similar_folders(folder)


def _from_hub(name: str) -> Path:
    """Download (or find in the cache) config, tokenizer and weights, safetensors if the repository has them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    hint = similar_folders(Path(name), _MARKS)
    try:
        for weights in ("*.safetensors", "*.bin"):
            wanted = [_CONFIG, weights, f"{weights}.index.json", *_TOKENIZER]
            folder = Path(snapshot_download(name, allow_patterns=wanted))
            if any(folder.glob(weights)):
                return folder
    except GatedRepoError as error:
        raise UserError(f"the hub asks for a login to read {name}; run `hf auth login`, then try again.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"there is no folder {name}, and no public model {name} on the hub; {hint or 'check the name.'}"
        ) from error
    except Exception as error:  # offline mode, no network and proxies raise different errors
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise UserError(
            f"there is no folder {name}, and it cannot be had from the Hugging Face hub ({reason}). Check the name and "
            f"the connection, or download the model elsewhere and give its folder.{hint and f' Folders here: {hint}'}"
        ) from error
    raise UserError(f"the hub's {name} has neither safetensors nor .bin weights for PyTorch.")


def map_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every tensor of a folder in Hugging Face's layout.

    The files are memory-mapped: a tensor is read when it is used, and the system may drop its pages again.

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
    """Names of the folder's other files with weights, which `map_tensors` skips as transformers does."""
    files, _ = _weight_files(folder)
    first = next(name for name in _ORDER if (folder / name).is_file())
    return tuple(sorted(_weights_in(folder) - {file.name for file in files} - {first}))


def _weights_in(folder: Path) -> set[str]:
    """Names of all files that hold or list weights, of any save or variant."""
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
    except Exception as error:  # the libraries raise a wide range of errors for damaged files
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{file} is damaged or no weights file ({type(error).__name__}: {reason}).") from error


def _check_header(file: Path) -> None:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if length > min(_LARGEST_HEADER, file.stat().st_size):
        raise UserError(f"{file} is damaged or no weights file: its header would take {length:,} bytes.")


def _unpickled(file: Path) -> Any:
    """The content of a .bin file, read by torch's restricted unpickler: tensors and plain containers, no code."""
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
