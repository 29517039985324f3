"""A small vocabulary, a small model, and Hugging Face's T5 with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from t0train.data import Vocabulary, load_vocabulary
from t0train.model import T5, init_model
from tests.evals.films import train_vocabulary

WORDS = "the a is was film food good bad yes no it not very red green blue question answer which of these one two"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Trained on a handful of words; bytes spell the rest."""
    words = WORDS.split()
    corpus = [" ".join(words[(i * k) % len(words)] for k in range(1, 9)) for i in range(200)]
    return load_vocabulary(train_vocabulary(tmp_path_factory.mktemp("vocabulary"), "spiece", corpus))


def small_model(vocab_size: int, seed: int = 0, **changes: Any) -> T5:
    """Random weights, with relative biases and a head large enough to tell positions and choices apart."""
    sizes = {"d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4, **changes}
    model = init_model("tiny", seed=seed, vocab_size=vocab_size, **sizes)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name or "lm_head" in name:
                parameter.normal_()
    return model.eval()
