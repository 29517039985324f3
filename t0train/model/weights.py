"""The one way to a model's weights: random ones, or those of a file, filled into a model that has no memory yet.

A model is built on the meta device (`meta_model`), sharded over processes where there are several, given memory
(`to_empty`) and then filled, so that no process ever holds more than its shard and one tensor of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from t0train.checkpoint import read_manifest, read_state
from t0train.config import RunConfig
from t0train.config.architecture import SIZES, DropoutStyle, T5Config, read_architecture
from t0train.core.errors import UserError, nearest
from t0train.core.hashing import derive_seed
from t0train.model.t5 import T5
from t0train.model.weight_files import LoadReport, find_weights, map_tensors, unread_files

Fill = Callable[[Mapping[str, Tensor]], None]
"""Writes weights into a model's parameters: by name, in the model's order, whole or sharded (DTensors)."""

_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# T5's first releases carried a bias for cross attention that no version of the model uses
_HARMLESS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@dataclass(frozen=True)
class Weights:
    """A model's weights, opened and checked by name, but not read into memory.

    Attributes:
        config: architecture; whether the head is tied is decided by the tensors.
        report: what becomes of the tensors of the file.
        tensors: by parameter name, mapped from the file; None for a t0train checkpoint, which DCP reads shard by shard.
    """

    config: T5Config
    report: LoadReport
    tensors: dict[str, Tensor] | None

    @torch.no_grad()
    def fill(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy the weights into the parameters of a model of this architecture.

        Args:
            parameters: by name, whole or sharded (DTensors), on any device.

        Raises:
            UserError: infinite or undefined values, a damaged checkpoint.
        """
        folder = self.report.source
        if self.tensors is None:
            read_manifest(folder)
            read_state(folder, {"model": {name: parameter.detach() for name, parameter in parameters.items()}})
            return
        for name, parameter in parameters.items():
            shard, source = local_shard(parameter, self.tensors[name])
            shard.copy_(source)
            # minimum and maximum take no memory, and are NaN if any value is
            if shard.numel() and not torch.stack(shard.aminmax()).isfinite().all():
                kinds = f"{_kind(source)} in the file, {_kind(shard)} in the model"
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
        return Weights(config, LoadReport(folder, tuple(parameters), (), (), config.tie_word_embeddings), None)
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

    The result is on the CPU and in training mode; `model.report` says what was read. Files are memory-mapped, so
    loading takes the memory of one copy of the weights.

    Args:
        source: folder, run folder, or hub id such as `google/t5-xl-lm-adapt`.
        step: checkpoint of a run folder; the newest if not given.
        attention: attention backend.
        dropout: dropout rate; the model's own if not given.
        dropout_style: `mesh` or `elementwise`; the model's own (mesh for foreign ones) if not given.
        dtype: of the parameters; float32, or bfloat16 to evaluate in half the memory.

    Raises:
        UserError: nothing to load, missing or unexpected tensors, a head that is tied where it must not be, infinite or
            undefined values, float16.
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


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run starts from, not yet read into memory.

    Attributes:
        config: the architecture, with the run's dropout.
        fill: writes the weights into a model that was built by `meta_model`, sharded if need be, and given memory.
        report: on the weight files; None for random weights.
    """

    config: T5Config
    fill: Fill
    report: LoadReport | None = None


def open_initial_weights(config: RunConfig) -> InitialWeights:
    """The weights that a run starts from: random ones keyed by its seed, or those that `model.init_from` names.

    Raises:
        UserError: the weights cannot be found or are not a T5.
    """
    settings = config.model
    if settings.init_from != "random":
        weights = open_weights(settings.init_from, dropout=settings.dropout, dropout_style=settings.dropout_style)
        return InitialWeights(weights.config, weights.fill, weights.report)
    architecture = _sized_config(
        settings.size,
        vocab_size=settings.vocabulary_size,
        dropout=settings.dropout,
        dropout_style=settings.dropout_style,
    )
    seed = derive_seed(config.seed, "weights")
    return InitialWeights(architecture, lambda parameters: init_weights(parameters, architecture, seed))


def initial_model(config: RunConfig) -> T5:
    """The whole model that a run starts from, on the CPU; see `open_initial_weights`."""
    weights = open_initial_weights(config)
    model = meta_model(weights.config, config.model.attention).to_empty(device="cpu")
    weights.fill(dict(model.named_parameters()))
    return model


def meta_model(config: T5Config, attention: str = "auto") -> T5:
    """A model on the meta device: to be sharded or not, given memory (`to_empty`), then filled."""
    with torch.device("meta"):
        return T5(config, attention)


def init_model(
    size: str, seed: int = 0, vocab_size: int | None = None, attention: str = "auto", **overrides: Any
) -> T5:
    """A T5 1.1 with random weights.

    Args:
        size: a name of `SIZES`.
        seed: key of the weights.
        vocab_size: rows of the embedding and of the head; 32,128 if not given.
        attention: attention backend.
        **overrides: other fields of `T5Config`, e.g. `dropout=0.0`.

    Raises:
        UserError: unknown size or field.
    """
    if vocab_size is not None:
        overrides["vocab_size"] = vocab_size
    model = meta_model(_sized_config(size, **overrides), attention).to_empty(device="cpu")
    init_weights(dict(model.named_parameters()), model.config, seed)
    return model


def _sized_config(size: str, **overrides: Any) -> T5Config:
    """The architecture of a named size, with other fields changed; see `init_model`."""
    if size not in SIZES:
        raise UserError(f"there is no model size {size!r}; {nearest(size, SIZES)}")
    known = T5Config.__dataclass_fields__
    if unknown := sorted(set(overrides) - set(known)):
        raise UserError(f"a model has no {unknown[0]!r}; {nearest(unknown[0], known)}")
    return replace(SIZES[size], **overrides)


@torch.no_grad()
def init_weights(parameters: Mapping[str, Tensor], config: T5Config, seed: int) -> None:
    """Write T5's initial weights (mesh_tensorflow's, as in Hugging Face's `_init_weights`) into a model's parameters.

    One exception: an untied head gets std d_model ** -0.5 instead of 1, so that the first logits have std 1 and the
    first loss is near log(vocabulary).

    Args:
        parameters: by name and in the model's order, whole or sharded (DTensors).
        config: the model's architecture.
        seed: key of the weights.
    """
    generator = torch.Generator().manual_seed(seed % (1 << 63))
    stds = {
        "shared": 1.0,
        "lm_head": config.d_model**-0.5,
        "q": (config.d_model * config.d_kv) ** -0.5,
        "k": config.d_model**-0.5,
        "v": config.d_model**-0.5,
        "o": (config.num_heads * config.d_kv) ** -0.5,
        "relative_attention_bias": config.d_model**-0.5,
        "wi": config.d_model**-0.5,
        "wi_0": config.d_model**-0.5,
        "wi_1": config.d_model**-0.5,
        "wo": config.d_ff**-0.5,
    }
    for name, parameter in parameters.items():
        module = name.split(".")[-2]
        if module in stds:  # every rank draws the whole tensor, so that the shards fit together
            _fill_shard(parameter, torch.empty(parameter.shape).normal_(0, stds[module], generator=generator))
        else:
            parameter.fill_(1)


def local_shard(parameter: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """This rank's shard of `parameter` (which may be empty), and the same slice of `whole`, a tensor of its full shape.

    A parameter that is no DTensor is one shard.
    """
    if not isinstance(parameter, DTensor):
        return parameter, whole
    shape, offsets = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    shard = tuple(slice(offset, offset + size) for offset, size in zip(offsets, shape, strict=True))
    return parameter.to_local(), whole[shard]


def _fill_shard(parameter: Tensor, whole: Tensor) -> None:
    shard, source = local_shard(parameter, whole)
    shard.copy_(source)


def _check_size(checkpoint: Path, parameters: int) -> None:
    """Refuse a model description that does not fit the files, before memory is allocated for it."""
    held = sum(file.stat().st_size for file in (checkpoint / "state").glob("*") if file.is_file())
    if held < 2 * parameters:  # bytes, if all were bfloat16
        raise UserError(
            f"{checkpoint}: model.json describes {parameters:,} parameters, but state/ holds {held:,} bytes; the "
            "checkpoint is damaged (a file is missing) or put together from several."
        )


def _open_tensors(folder: Path, config: T5Config) -> Weights:
    untied = replace(config, tie_word_embeddings=False)  # whether it is tied is decided by the tensors, below
    parameters = dict(meta_model(untied).named_parameters())
    tensors, embeddings, unexpected = dict[str, Tensor](), dict[str, Tensor](), list[str]()
    for name, tensor in map_tensors(folder):
        if name in _EMBEDDINGS:
            embeddings[name] = tensor
        elif name not in parameters:
            unexpected.append(name)
        else:
            tensors[name] = tensor
    if "shared.weight" not in tensors and embeddings:  # some files name the embedding only in the stacks
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
    _check_head(folder, config, tied, absent)
    if tied:
        tensors.pop("lm_head.weight", None)
    stored_as = tuple(sorted({_kind(tensor) for tensor in tensors.values()}))
    report = LoadReport(
        folder, tuple(tensors), tuple(embeddings), tuple(unexpected), tied, unread_files(folder), stored_as
    )
    return Weights(replace(config, tie_word_embeddings=tied), report, tensors)


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
    """Advice where names are right except for the prefix of a wrapper (DDP, torch.compile, a training loop)."""
    for name in unexpected[:20]:
        for right in missing:
            prefix = name.removesuffix(right)
            if name.endswith(f".{right}") and sum(other.startswith(prefix) for other in unexpected) >= len(missing):
                return f" The names begin with {prefix!r}, as a wrapper leaves them: save them without it."
    return ""


def _check_head(folder: Path, config: T5Config, tied: bool, absent: bool) -> None:
    """Version 1.1 has an untied head; a file in which it was lost would load without error, as another model."""
    if config.is_gated and tied:
        what = "has no lm_head.weight" if absent else "has an lm_head.weight equal to the embedding"
        raise UserError(
            f"{folder}: a T5 1.1 (gated) has a head of its own, but the file {what}. Some tool tied it silently "
            "(transformers 5 does when a model is built from its config); get the original weights."
        )
    if not config.is_gated and config.tie_word_embeddings and not tied:
        raise UserError(
            f"{folder}: config.json describes a T5 1.0, whose head is the scaled embedding, but lm_head.weight differs "
            "from it; set tie_word_embeddings and scale_decoder_outputs to false if the head is meant to be its own."
        )
