"""A T5 without weights, and with random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from t0train.config.architecture import SIZES, T5Config
from t0train.core.errors import UserError, nearest
from t0train.model.parts import fill_part
from t0train.model.t5 import T5


@torch.no_grad()
def init_weights(parameters: Mapping[str, Tensor], config: T5Config, seed: int) -> None:
    """Write T5's initial weights (mesh_tensorflow's, as in Hugging Face's `_init_weights`) into a model's parameters.

    One exception: an untied head gets std d_model ** -0.5 instead of 1, so that the first logits have std 1 and the
    first loss is near log(vocabulary).

    Args:
        parameters: by name and in the model's order, whole or in parts (DTensors).
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
        if module in stds:  # drawn whole by every process that holds a part, so that the parts fit together
            fill_part(parameter, torch.empty(parameter.shape).normal_(0, stds[module], generator=generator))
        else:
            parameter.fill_(1)


def meta_model(config: T5Config, attention: str = "auto") -> T5:
    """A model without memory, to be spread over processes or given memory (`to_empty`), then filled."""
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
        attention: attention back end.
        **overrides: other fields of `T5Config`, e.g. `dropout=0.0`.

    Raises:
        UserError: unknown size or field.
    """
    if vocab_size is not None:
        overrides["vocab_size"] = vocab_size
    model = meta_model(sized_config(size, **overrides), attention).to_empty(device="cpu")
    init_weights(dict(model.named_parameters()), model.config, seed)
    return model


def sized_config(size: str, **overrides: Any) -> T5Config:
    """The architecture of a named size, with other fields changed; see `init_model`."""
    if size not in SIZES:
        raise UserError(f"there is no model size {size!r}; {nearest(size, SIZES)}")
    known = T5Config.__dataclass_fields__
    if unknown := sorted(set(overrides) - set(known)):
        raise UserError(f"a model has no {unknown[0]!r}; {nearest(unknown[0], known)}")
    return replace(SIZES[size], **overrides)
