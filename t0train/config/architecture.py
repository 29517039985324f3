"""Architecture constants of T5, and their spelling in Hugging Face's config.json.

Kept out of `t0train.model` so that `t0train estimate` need not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from t0train.core.errors import UserError, nearest

DropoutStyle = Literal["mesh", "elementwise"]

_LARGEST = {
    "vocab_size": 1 << 24,
    "d_model": 1 << 17,
    "d_kv": 1 << 16,
    "d_ff": 1 << 20,
    "num_layers": 1 << 9,
    "num_heads": 1 << 12,
    "relative_buckets": 1 << 16,
    "relative_max_distance": 1 << 24,
}
"""Far beyond any T5 (XXL has 4,096 channels and 24 layers): what a damaged or hostile file says must cost nothing."""


@dataclass(frozen=True)
class T5Config:
    """A T5: version 1.1 (gated, untied head: LM-adapted and T0 models) or 1.0 (neither gated nor untied).

    Encoder and decoder have `num_layers` layers each. `num_heads * d_kv` need not equal `d_model`.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_buckets: int = 32
    relative_max_distance: int = 128
    dropout: float = 0.1
    dropout_style: DropoutStyle = "mesh"
    is_gated: bool = True
    tie_word_embeddings: bool = False
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
                raise UserError(f"{name} is {_shown(value)}, but a whole number from 1 to {largest:,} is expected.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"the dropout rate is {_shown(self.dropout)}, but one from 0 to below 1 is expected.")
        if not 0 < self.eps < math.inf:
            raise UserError(f"the norms' epsilon is {_shown(self.eps)}, but a small positive number is expected.")
        if self.dropout_style not in get_args(DropoutStyle):
            raise UserError(f"dropout_style is {_shown(self.dropout_style)}; expected mesh or elementwise.")

    @property
    def drops_weights(self) -> bool:
        """Whether dropout takes single attention weights, which few attention backends can do."""
        return self.dropout > 0 and self.dropout_style == "elementwise"

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values (`model.json` of a checkpoint)."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> T5Config:
        """The inverse of `to_json`; a file of another layout is a `UserError`."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"the model description has the unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"the model description is incomplete: {error}.") from error

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> T5Config:
        """Read Hugging Face's config.json of a T5.

        `tie_word_embeddings` is only a first guess: since transformers 5 the flag is unreliable (forced to true), so
        the loader decides by the tensors of the file.

        Raises:
            UserError: another architecture, or one that T5 never had (e.g. stacks of different depth).
        """
        if values.get("model_type") != "t5":
            raise UserError(
                f"the model's type is {_shown(values.get('model_type'))}, but t0train trains 't5' (T5 1.0 and 1.1, "
                "LM-adapted, T0)."
            )
        for key, meaning in _ELSEWHERE.items():
            if values.get(key):
                raise UserError(f"it has `{key}`: {meaning}.")
        layers = values["num_layers"]
        decoder_layers = values.get("num_decoder_layers")
        if decoder_layers is not None and decoder_layers != layers:
            raise UserError(
                f"the model has {_shown(layers)} encoder and {_shown(decoder_layers)} decoder layers; "
                "t0train needs as many of one as of the other."
            )
        activation = str(values.get("feed_forward_proj", "relu"))
        if activation not in ("relu", "gated-gelu"):
            raise UserError(
                f"the model's feed_forward_proj is {_shown(activation)}; t0train knows relu and gated-gelu."
            )
        return cls(
            vocab_size=values["vocab_size"],
            d_model=values["d_model"],
            d_kv=values["d_kv"],
            d_ff=values["d_ff"],
            num_layers=layers,
            num_heads=values["num_heads"],
            relative_buckets=values.get("relative_attention_num_buckets", 32),
            relative_max_distance=values.get("relative_attention_max_distance", 128),
            dropout=float(values.get("dropout_rate", 0.1)),
            is_gated=activation == "gated-gelu",
            tie_word_embeddings=all(values.get(key, True) for key in ("tie_word_embeddings", "scale_decoder_outputs")),
            eps=float(values.get("layer_norm_epsilon", 1e-6)),
        )

    def to_hf(self) -> dict[str, Any]:
        """Hugging Face's config.json. Version 1.1 states the untied head in the two ways that transformers reads."""
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_layers": self.num_layers,
            "num_decoder_layers": self.num_layers,
            "num_heads": self.num_heads,
            "relative_attention_num_buckets": self.relative_buckets,
            "relative_attention_max_distance": self.relative_max_distance,
            "dropout_rate": self.dropout,
            "feed_forward_proj": "gated-gelu" if self.is_gated else "relu",
            "layer_norm_epsilon": self.eps,
            "initializer_factor": 1.0,
            "is_encoder_decoder": True,
            "tie_word_embeddings": self.tie_word_embeddings,
            "scale_decoder_outputs": self.tie_word_embeddings,
            "use_cache": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        }


def read_architecture(folder: Path) -> T5Config:
    """The architecture of a checkpoint (`model.json`) or of a folder in Hugging Face's layout (`config.json`).

    Raises:
        UserError: no such file, or it describes no T5.
    """
    name = "model.json" if (folder / "model.json").is_file() else "config.json"
    try:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {folder / name}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{folder / name} holds {_shown(values)}, but an object with the model's sizes by name is expected."
        )
    try:
        return T5Config.from_json(values) if name == "model.json" else T5Config.from_hf(values)
    except (UserError, KeyError, TypeError, ValueError) as error:
        detail = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{folder / name}: {detail}") from error


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}..."


_ELSEWHERE = {
    "quantization_config": "quantised weights cannot be trained or evaluated here; get the original ones",
    "transformers_weights": "a file of another name has the weights; rename it to model.safetensors",
}
"""Keys of config.json that say that the weights are not what the usual files hold."""


def _v11(d_model: int, d_kv: int, d_ff: int, num_layers: int, num_heads: int) -> T5Config:
    return T5Config(32_128, d_model, d_kv, d_ff, num_layers, num_heads)


# Small and up: T5 1.1 as published (text-to-text-transfer-transformer, t5/models/gin/models/t5.1.1.*.gin).
# Tiny and mini are ours, for CPUs.
SIZES: dict[str, T5Config] = {
    "tiny": _v11(d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4),
    "mini": _v11(d_model=256, d_kv=32, d_ff=512, num_layers=4, num_heads=8),
    "small": _v11(d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6),
    "base": _v11(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12),
    "large": _v11(d_model=1024, d_kv=64, d_ff=2816, num_layers=24, num_heads=16),
    "xl": _v11(d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32),
    "xxl": _v11(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64),
}
