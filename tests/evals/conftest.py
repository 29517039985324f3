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


def huggingface(model: T5) -> Any:
    """`T5ForConditionalGeneration` with the weights of `model`, head untied (transformers 5 ties it on its own)."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = model.config
    twin = T5ForConditionalGeneration(
        T5Config(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            d_kv=config.d_kv,
            d_ff=config.d_ff,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
        )
    )
    twin.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    twin.all_tied_weights_keys.pop("lm_head.weight", None)
    twin.config.scale_decoder_outputs = False
    report = twin.load_state_dict(model.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) <= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert twin.lm_head.weight is not twin.shared.weight
    return twin.eval()
