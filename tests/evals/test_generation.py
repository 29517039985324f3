"""Generation against a greedy loop over our own model, one prompt at a time, without a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from t0train.core.errors import UserError
from t0train.data import Vocabulary, build_rows
from t0train.evals import Generator
from t0train.model import T5, Batch, export_model
from tests.evals.conftest import small_model

PROMPTS = [
    "the film was good . yes or no",
    "which of these is red",
    "a",
    "not bad very good green blue question answer",
]


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> T5:
    return small_model(vocabulary.size)


@pytest.fixture(scope="module")
def exported(model: T5, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(export_model(model, tmp_path_factory.mktemp("exported") / "model", vocabulary.path))


@torch.no_grad()
def greedy(model: T5, vocabulary: Vocabulary, prompt: str, most: int) -> str:
    written: list[int] = []
    for _ in range(most):
        # the last label is a placeholder: it decides nothing about its own position
        rows = build_rows([[(vocabulary.encode(prompt), [np.array([*written, 1])])]], 64, most + 1)
        written.append(int(model(Batch.from_rows(rows))[0, len(written)].argmax()))
        if written[-1] == vocabulary.eos_id:
            break
    return vocabulary.decode(written)


def test_answers_equal_a_greedy_loop(model: T5, vocabulary: Vocabulary, exported: str) -> None:
    """Prompts of different length in one padded batch; inputs have no EOS in the loop."""
    expected = [greedy(model, vocabulary, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) > 1
    assert Generator.open(exported).generate(PROMPTS, max_new_tokens=12) == expected


def test_a_loaded_model_writes_the_same_and_keeps_its_weights(model: T5, vocabulary: Vocabulary, exported: str) -> None:
    before = {name: (values.data_ptr(), values.clone()) for name, values in model.state_dict().items()}
    assert Generator.of(model, vocabulary).generate(PROMPTS, 12) == Generator.open(exported).generate(PROMPTS, 12)
    for name, values in model.state_dict().items():
        assert values.data_ptr() == before[name][0]
        assert torch.equal(values, before[name][1])
        assert values.requires_grad == before[name][1].requires_grad


def test_tied_heads_write_as_a_greedy_loop_does(vocabulary: Vocabulary) -> None:
    tied = small_model(vocabulary.size, tie_word_embeddings=True, is_gated=False)
    expected = [greedy(tied, vocabulary, prompt, 8) for prompt in PROMPTS]
    assert Generator.of(tied, vocabulary).generate(PROMPTS, max_new_tokens=8) == expected


def test_device_map_and_batch_size_do_not_change_answers(exported: str) -> None:
    plain = Generator.open(exported).generate(PROMPTS, max_new_tokens=8)
    assert Generator.open(exported, device_map="auto").generate(PROMPTS, max_new_tokens=8, batch_size=1) == plain


def test_long_prompts_are_cut_at_the_end(exported: str) -> None:
    generator = Generator.open(exported)
    tail = PROMPTS[0] + " green blue red" * 20
    length = len(generator.vocabulary.encode(PROMPTS[0]))
    assert generator.generate([tail], 8, max_inputs=length) == generator.generate([PROMPTS[0]], 8)


def test_nan_is_an_error_that_names_the_prompt(vocabulary: Vocabulary) -> None:
    damaged = small_model(vocabulary.size)
    only_in_second = set(vocabulary.encode(PROMPTS[1]).tolist()) - set(vocabulary.encode(PROMPTS[0]).tolist())
    with torch.no_grad():
        damaged.shared.weight[sorted(only_in_second)] = torch.nan
    with pytest.raises(UserError, match=r"prompt 2 of 2 \('which of these is red'\): the model gives NaN"):
        Generator.of(damaged, vocabulary).generate(PROMPTS[:2], max_new_tokens=4)


def test_bad_input(exported: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prompt 2 of 2 is empty"):
        Generator.open(exported).generate(["the film", ""])
    with pytest.raises(UserError, match="no model folder"):
        Generator.open(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="--device-map nonsense"):
        Generator.open(exported, device_map="nonsense")
