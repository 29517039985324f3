"""Rank scores against Hugging Face's T5, one choice at a time, and what must not change them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from t0train.core.errors import UserError
from t0train.data import Vocabulary
from t0train.evals import rank_choices, rank_tokens
from t0train.model import T5, to_huggingface
from tests.evals.conftest import small_model

VOCAB = 96
Item = tuple[np.ndarray, list[np.ndarray]]


@pytest.fixture(scope="module")
def model() -> T5:
    return small_model(VOCAB)


@pytest.fixture(scope="module")
def twin(model: T5) -> Any:
    return to_huggingface(model)


def ids(random: np.random.Generator, length: int) -> np.ndarray:
    return random.integers(3, VOCAB, length).astype(np.uint16)


def choice(random: np.random.Generator, length: int) -> np.ndarray:
    return np.append(ids(random, length), np.uint16(1))


def some_items(number: int = 40, seed: int = 0) -> list[Item]:
    random = np.random.default_rng(seed)
    return [
        (
            ids(random, int(random.integers(1, 90))),
            [choice(random, int(random.integers(0, 9))) for _ in range(random.integers(1, 7))],
        )
        for _ in range(number)
    ]


@torch.no_grad()
def one_choice_at_a_time(twin: Any, items: list[Item]) -> list[np.ndarray]:
    """The oracle: no packing, no padding, no sharing; stock forward and log-softmax in float64."""
    scores = []
    for inputs, choices in items:
        values = []
        for target in choices:
            labels = torch.from_numpy(target.astype(np.int64))
            decoder = torch.cat([torch.zeros(1, dtype=torch.long), labels[:-1]])
            out = twin(input_ids=torch.from_numpy(inputs.astype(np.int64))[None], decoder_input_ids=decoder[None])
            values.append(float(out.logits[0].double().log_softmax(-1)[torch.arange(len(labels)), labels].sum()))
        scores.append(np.array(values))
    return scores


def check(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [len(values) for values in found] == [len(values) for values in expected]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4, rtol=0)


def test_scores_equal_a_loop_over_single_choices(model: T5, twin: Any) -> None:
    items = some_items()
    expected = one_choice_at_a_time(twin, items)
    assert np.std(np.concatenate(expected)) > 1  # the choices differ by far more than the tolerance
    check(rank_tokens(model, items), expected)


def test_texts_are_scored_without_eos_on_the_input_and_with_it_on_choices(vocabulary: Vocabulary) -> None:
    model = small_model(vocabulary.size)
    examples = [
        ("the film was good is it good or bad", ["good", "bad"]),
        ("which of these", ["red green", "blue", "", "a very red answer"]),
    ]
    items = [
        (vocabulary.encode(text), [np.append(vocabulary.encode(option), np.uint16(1)) for option in options])
        for text, options in examples
    ]
    check(rank_choices(model, vocabulary, examples), one_choice_at_a_time(to_huggingface(model), items))


def test_real_prompts_in_the_real_vocabulary(t5_vocabulary: Any) -> None:
    from t0train.data import load_vocabulary

    vocabulary = load_vocabulary(t5_vocabulary)
    model = small_model(32_128)
    examples = [
        ('Suppose no cat is a dog. Can we infer that "no dog is a cat"? Yes, no, or maybe?', ["Yes", "Maybe", "No"]),
        (
            "What is this a piece of text about? World politics, Sports, Business, or Science?",
            ["World politics", "Sports"],
        ),
    ]
    items = [
        (vocabulary.encode(text), [np.append(vocabulary.encode(option), np.uint16(1)) for option in options])
        for text, options in examples
    ]
    check(rank_choices(model, vocabulary, examples), one_choice_at_a_time(to_huggingface(model), items))


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_batch_size_does_not_matter(model: T5, batch_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = some_items()
    expected = rank_tokens(model, items)
    for name, value in {"MAX_INPUTS": 128, "MAX_TARGETS": 48, "_BATCH_TOKENS": batch_tokens}.items():
        monkeypatch.setattr(f"t0train.evals.rank.{name}", value)
    check(rank_tokens(model, items), expected)


def test_order_and_company_do_not_matter(model: T5) -> None:
    items = some_items()
    together = rank_tokens(model, items)
    order = np.random.default_rng(3).permutation(len(items))
    shuffled = rank_tokens(model, [items[i] for i in order])
    check([shuffled[place] for place in np.argsort(order)], together)
    check([rank_tokens(model, [item])[0] for item in items], together)


def test_order_of_choices_does_not_matter(model: T5) -> None:
    items = some_items()
    forwards = rank_tokens(model, items)
    backwards = rank_tokens(model, [(inputs, choices[::-1]) for inputs, choices in items])
    check([values[::-1] for values in backwards], forwards)


def test_padding_does_not_matter(model: T5, monkeypatch: pytest.MonkeyPatch) -> None:
    items = some_items(12)
    tight = rank_tokens(model, items)
    monkeypatch.setattr("t0train.evals.rank._WIDTH_STEP", 1024)
    check(rank_tokens(model, items), tight)


def test_more_choices_than_a_row_holds(model: T5, twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    items = [(ids(random, 20), [choice(random, 6) for _ in range(30)]), *some_items(5)]
    monkeypatch.setattr("t0train.evals.rank.MAX_TARGETS", 32)
    check(rank_tokens(model, items), one_choice_at_a_time(twin, items))


def test_long_inputs_and_choices_are_cut_at_the_end(model: T5, twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice cut by the budget ends in EOS on its last slot, as in the original (ensure_dataset_eos)."""
    random = np.random.default_rng(6)
    inputs, long, short = ids(random, 200), choice(random, 60), choice(random, 3)
    cut = np.append(long[:31], np.uint16(1))
    monkeypatch.setattr("t0train.evals.rank.MAX_INPUTS", 128)
    monkeypatch.setattr("t0train.evals.rank.MAX_TARGETS", 32)
    found = rank_tokens(model, [(inputs, [long, short])])
    check(found, one_choice_at_a_time(twin, [(inputs[:128], [cut, short])]))


def test_equal_choices_tie_exactly_and_the_first_wins(model: T5) -> None:
    random = np.random.default_rng(7)
    target = choice(random, 4)
    [scores] = rank_tokens(model, [(ids(random, 30), [choice(random, 9), target, choice(random, 9), target.copy()])])
    assert scores[1] == scores[3]
    assert scores.argmax() == 1


def test_mode_of_the_model_is_kept_and_dropout_is_off(model: T5) -> None:
    items = some_items(6)
    expected = rank_tokens(model, items)
    model.train()
    try:
        check(rank_tokens(model, items), expected)
        assert model.training
    finally:
        model.eval()


def test_bad_input_is_named(model: T5) -> None:
    random = np.random.default_rng(8)
    good = (ids(random, 5), [choice(random, 2)])
    with pytest.raises(UserError, match="row 1 has no choices"):
        rank_tokens(model, [good, (ids(random, 5), [])], name="row {}".format)
    with pytest.raises(UserError, match="example 0 has an empty input"):
        rank_tokens(model, [(ids(random, 0), [choice(random, 2)])])


def test_nan_is_reported_with_the_item_that_gives_it() -> None:
    """Both items lie on one row, along which NaN spreads; only the second reads the damaged embedding."""
    broken = small_model(VOCAB)
    with torch.no_grad():
        broken.shared.weight[4] = float("nan")
    items = [(np.full(5, token, np.uint16), [np.array([7, 1], np.uint16)]) for token in (3, 4)]
    with pytest.raises(UserError, match="example 1: the model gives NaN"):
        rank_tokens(broken, items)
