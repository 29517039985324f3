"""Load weights into our T5, and say or refuse what could make the model silently another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from t0train.checkpoint import read_manifest, read_state
from t0train.config.architecture import DropoutStyle, T5Config, read_architecture
from t0train.core.errors import UserError
from t0train.model.build import meta_model
from t0train.model.parts import local_part
from t0train.model.t5 import T5
from t0train.model.tensors import map_tensors, unread_files
from t0train.model.weights import LoadReport, find_weights

_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# T5's first releases carried a bias for cross attention that no version of the model ever read
_HARMLESS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@dataclass(frozen=True)
class Weights:
    """The weights of a model, opened and checked by name, but not read: nothing is held in memory.

    A model that is to be spread over processes is built from `config` on the meta device, cut up, given memory
    (`to_empty`) and then filled; no process ever holds more than its part and one tensor of the file's mapping.

    Attributes:
        config: architecture; the head is what the tensors say it is.
        report: what becomes of the tensors of the file.
        tensors: by parameter name, mapped from the file; None for a checkpoint of ours, which knows its own way.
    """

    config: T5Config
    report: LoadReport
    tensors: dict[str, Tensor] | None

    @torch.no_grad()
    def fill(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy the weights into the parameters of a model of this architecture.

        Args:
            parameters: by name, whole or in parts (DTensors), on any device.

        Raises:
            UserError: infinite or undefined values, a damaged checkpoint.
        """
        folder = self.report.source
        if self.tensors is None:
            read_manifest(folder)
            read_state(folder, {"model": {name: parameter.detach() for name, parameter in parameters.items()}})
            return
        for name, parameter in parameters.items():
            mine, part = local_part(parameter, self.tensors[name])
            mine.copy_(part)
            # the extremes take no memory, and are undefined if any value is
            if mine.numel() and not torch.stack(mine.aminmax()).isfinite().all():
                kinds = f"{_kind(part)} in the file, {_kind(mine)} in the model"
                raise UserError(f"{folder}: {name} holds infinite or undefined values ({kinds}).")


def open_weights(
    source: str | Path,
    *,
    step: int | None = None,
    dropout: float | None = None,
    dropout_style: DropoutStyle | None = None,
) -> Weights:
    """Open a folder in Hugging Face's layout, a model of the hub, a run folder or a checkpoint; see `load_model`."""
    folder = find_weights(source, step)
    config = read_architecture(folder)
    config = replace(
        config,
        dropout=config.dropout if dropout is None else dropout,
        dropout_style=config.dropout_style if dropout_style is None else dropout_style,
    )
    if (folder / "model.json").is_file():
        parameters = dict(meta_model(config).named_parameters())
        _check_size(folder, sum(parameter.numel() for parameter in parameters.values()))
        return Weights(config, LoadReport(folder, tuple(parameters), (), (), config.tied), None)
    return _open_tensors(folder, config)


def load_model(
    source: str | Path,
    *,
    step: int | None = None,
    attention: str = "auto",
    dropout: float | None = None,
    dropout_style: DropoutStyle | None = None,
    dtype: torch.dtype = torch.float32,
) -> T5:
    """Load a T5 from a folder in Hugging Face's layout, the hub, a run folder or a checkpoint.

    The result is on the CPU and in training mode; `model.report` tells what was read. Files are mapped into memory, so
    loading takes the memory of one copy of the weights.

    Args:
        source: folder, run folder, or hub id such as `google/t5-xl-lm-adapt`.
        step: checkpoint of a run folder; the newest if not given.
        attention: attention back end.
        dropout: dropout rate; the model's own if not given.
        dropout_style: `mesh` or `elementwise`; the model's own (mesh for foreign ones) if not given.
        dtype: of the parameters; float32, or bfloat16 to evaluate in half the memory.

    Raises:
        UserError: nothing to load, missing or unexpected tensors, a head that is tied where it must not be, infinite or
            undefined values, a model that is to compute in float16.
    """
    if dtype == torch.float16:
        raise UserError(
            "dtype float16: T5 was trained in bfloat16 and its feed-forward outputs exceed 65,504, the largest "
            "float16; they become infinite. Use bfloat16 or float32."
        )
    weights = open_weights(source, step=step, dropout=dropout, dropout_style=dropout_style)
    model = meta_model(weights.config, attention).to(dtype).to_empty(device="cpu")
    weights.fill(dict(model.named_parameters()))
    model.report = weights.report
    return model


def _check_size(checkpoint: Path, parameters: int) -> None:
    """Refuse a model description that the files cannot belong to, before memory for it is taken."""
    held = sum(file.stat().st_size for file in (checkpoint / "state").glob("*") if file.is_file())
    if held < 2 * parameters:  # bytes, if all were bfloat16
        raise UserError(
            f"{checkpoint}: model.json describes {parameters:,} parameters, but state/ holds {held:,} bytes; the "
            "checkpoint is damaged (a file is missing) or put together from several."
        )


def _open_tensors(folder: Path, config: T5Config) -> Weights:
    untied = replace(config, tied=False)  # whether the head is one of its own is seen below
    parameters = dict(meta_model(untied).named_parameters())
    tensors, embeddings, unexpected = dict[str, Tensor](), dict[str, Tensor](), list[str]()
    for name, tensor in map_tensors(folder):
        if name in _EMBEDDINGS:
            embeddings[name] = tensor
        elif name not in parameters:
            unexpected.append(name)
        else:
            tensors[name] = tensor
    if "shared.weight" not in tensors and embeddings:  # some files name the embedding only by its users
        tensors["shared.weight"] = next(iter(embeddings.values()))
    missing = parameters.keys() - tensors.keys() - {"lm_head.weight"}
    _check_names(folder, missing, [name for name in unexpected if name != _HARMLESS])
    for name, tensor in tensors.items():
        _check_shape(folder, name, tensor, parameters[name])
    for name, tensor in embeddings.items():
        if not torch.equal(tensor, tensors["shared.weight"]):
            raise UserError(
                f"{folder}: {name} differs from shared.weight, but T5 has one embedding; some tool damaged the file."
            )
    absent = "lm_head.weight" not in tensors
    tied = absent or torch.equal(tensors["lm_head.weight"], tensors["shared.weight"])
    _check_head(folder, config, config.tied, tied, absent)
    if tied:
        tensors.pop("lm_head.weight", None)
    stored_as = tuple(sorted({_kind(tensor) for tensor in tensors.values()}))
    report = LoadReport(
        folder, tuple(tensors), tuple(embeddings), tuple(unexpected), tied, unread_files(folder), stored_as
    )
    return Weights(replace(config, tied=tied), report, tensors)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_shape(folder: Path, name: str, tensor: Tensor, parameter: Tensor) -> None:
    if tensor.shape != parameter.shape:
        is_transposed = tensor.shape == parameter.shape[::-1]
        raise UserError(
            f"{folder}: {name} is {list(tensor.shape)}{' (transposed?)' if is_transposed else ''}, but the model that "
            f"config.json describes has {list(parameter.shape)} there."
        )


def _check_names(folder: Path, missing: set[str], unexpected: list[str]) -> None:
    if not missing and not unexpected:
        return
    found = []
    for kind, names in (("lacks", sorted(missing)), ("has unknown", sorted(unexpected))):
        if names:
            found.append(f"{kind} {len(names)} tensors ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    raise UserError(
        f"{folder}: the file {' and '.join(found)}; it is no whole T5 of the kind that config.json describes."
        + _prefix_remark(missing, unexpected)
    )


def _prefix_remark(missing: set[str], unexpected: list[str]) -> str:
    """What to do if the names are right behind what some wrapper (DDP, torch.compile, a training loop) put first."""
    for name in unexpected[:20]:
        for right in missing:
            prefix = name.removesuffix(right)
            if name.endswith(f".{right}") and sum(other.startswith(prefix) for other in unexpected) >= len(missing):
                return f" The names begin with {prefix!r}, as a wrapper leaves them: save them without it."
    return ""


def _check_head(folder: Path, config: T5Config, said_tied: bool, tied: bool, absent: bool) -> None:
    """Version 1.1 has a head of its own; a file where that was lost loads without error and is another model."""
    if config.gated and tied:
        what = "has no lm_head.weight" if absent else "has an lm_head.weight equal to the embedding"
        raise UserError(
            f"{folder}: a T5 1.1 (gated) has a head of its own, but the file {what}. Some tool tied it silently "
            "(transformers 5 does when a model is built from its config); get the original weights."
        )
    if not config.gated and said_tied and not tied:
        raise UserError(
            f"{folder}: config.json describes a T5 1.0, whose head is the scaled embedding, but lm_head.weight differs "
            "from it; set tie_word_embeddings and scale_decoder_outputs to false if the head is meant to be its own."
        )
