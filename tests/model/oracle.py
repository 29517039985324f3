"""Hugging Face's T5 with our weights, run on one example at a time: the oracle of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t0train.data import RowBatch, build_rows
from t0train.model import T5, T5Config, init_weights, to_huggingface

VOCABULARY = 97
V11 = T5Config(VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3, dropout=0.0)
V10 = replace(V11, is_gated=False, tie_word_embeddings=True)


def make_model(config: T5Config, seed: int = 0, attention: str = "eager") -> T5:
    """Random weights, with relative biases and norms that matter: T5 starts with small biases and norms of 1."""
    model = T5(config, attention)
    init_weights(dict(model.named_parameters()), config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.normal_(0, 2, generator=generator)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model


def hf_model(model: T5) -> T5ForConditionalGeneration:
    """Their class with copies of our weights."""
    return cast(T5ForConditionalGeneration, to_huggingface(deepcopy(model), attn_implementation="eager"))


@dataclass(frozen=True)
class Example:
    """Ids of an input, and of its targets (one in training, choices in ranking)."""

    inputs: np.ndarray
    targets: tuple[np.ndarray, ...]


def random_examples(lengths: Sequence[tuple[int, Sequence[int]]], seed: int = 0) -> list[Example]:
    """One example for each (input length, target lengths); targets end in EOS."""
    generator = np.random.default_rng(seed)

    def ids(length: int) -> np.ndarray:
        return generator.integers(2, VOCABULARY, length)

    return [
        Example(ids(inputs), tuple(np.append(ids(length - 1), 1) for length in targets)) for inputs, targets in lengths
    ]


def as_rows(rows: Sequence[Sequence[Example]], max_inputs: int, max_targets: int) -> RowBatch:
    layout = [[(example.inputs, list(example.targets)) for example in row] for row in rows]
    return build_rows(layout, max_inputs, max_targets)


def hf_logits(theirs: T5ForConditionalGeneration, inputs: np.ndarray, target: np.ndarray) -> Tensor:
    """[target length, vocab] of one example, alone and without padding."""
    decoder_inputs = np.concatenate([[0], target[:-1]])
    output = theirs(
        input_ids=torch.from_numpy(inputs)[None],
        decoder_input_ids=torch.from_numpy(decoder_inputs)[None],
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return logits


def summed_loss(logits: Tensor, target: np.ndarray, z_loss: float) -> Tensor:
    """The formula of the paper's code, written with the full logits."""
    log_z = torch.logsumexp(logits.double(), -1)
    picked = logits.double()[torch.arange(len(target)), torch.from_numpy(target)]
    return (log_z - picked + z_loss * log_z.square()).sum()


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> bool:
    """Within `tolerance` of the largest expected value."""
    return bool((found - expected).detach().abs().max() <= tolerance * expected.detach().abs().max())


def grad_of(parameter: Tensor) -> Tensor:
    """The gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad
