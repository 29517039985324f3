"""What is held out stays unseen: prompts, nouns and records of the held-out datasets, and the vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import sentencepiece

from t0train.prompts import Template
from t0train.toy import DATASETS
from t0train.toy.records import ASPECTS
from tests.toy.conftest import Toy, rendered

TRAINING = [dataset.name for dataset in DATASETS if not dataset.held_out]
HELD_OUT = [dataset.name for dataset in DATASETS if dataset.held_out]


@pytest.fixture(scope="module")
def training_texts(toy: Toy) -> set[str]:
    """Every rendered input and target of training."""
    examples = (
        rendered(template, record)
        for name in TRAINING
        for template in toy.templates(name).values()
        for record in toy.records(name, "train")
    )
    return {part for one in examples for part in (one.input, one.target)}


@pytest.fixture(scope="module")
def training_words(training_texts: set[str]) -> set[str]:
    return {word for text in training_texts for word in text.split()}


def wording(template: Template, record: dict[str, Any]) -> set[str]:
    """The words of a prompt that come from the template, not from the record."""
    of_record = {word for value in record.values() for word in (str(value) if isinstance(value, str) else "").split()}
    return set(rendered(template, record).input.split()) - of_record - set(record.get("options", ()))


@pytest.mark.parametrize("name", HELD_OUT)
def test_every_held_out_prompt_has_words_that_no_training_prompt_has(
    toy: Toy, training_words: set[str], name: str
) -> None:
    for template in toy.templates(name).values():
        assert wording(template, toy.records(name, "validation")[0]) - training_words, template.name


@pytest.mark.parametrize("name", HELD_OUT)
def test_no_held_out_example_is_a_training_example(toy: Toy, training_texts: set[str], name: str) -> None:
    for template in toy.templates(name).values():
        assert not {rendered(template, record).input for record in toy.records(name, "validation")} & training_texts


@pytest.mark.parametrize("name", ["restaurants", "mail", "about"])
def test_no_held_out_text_is_part_of_training(toy: Toy, name: str) -> None:
    seen = {record["text"] for other in TRAINING for record in toy.records(other, "train") if "text" in record}
    assert not {record["text"] for record in toy.records(name, "validation")} & seen


def test_restaurants_speak_of_nouns_that_training_lacks(training_words: set[str]) -> None:
    assert not set(ASPECTS["restaurants"]) & training_words


def test_answers_of_the_held_out_prompts_are_known_words(toy: Toy, training_words: set[str]) -> None:
    for name in HELD_OUT:
        for template in toy.templates(name).values():
            assert {rendered(template, record).target for record in toy.records(name, "validation")} <= training_words


@pytest.fixture(scope="module")
def vocabulary(toy: Toy) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(toy.folder / "spiece.model"))


def test_the_vocabulary_has_t5s_special_ids(vocabulary: sentencepiece.SentencePieceProcessor) -> None:
    assert (vocabulary.pad_id(), vocabulary.eos_id(), vocabulary.unk_id(), vocabulary.bos_id()) == (0, 1, 2, -1)
    assert vocabulary.vocab_size() <= 640


def test_the_vocabulary_holds_nothing_that_training_lacks(
    vocabulary: sentencepiece.SentencePieceProcessor, training_words: set[str]
) -> None:
    spelt = "▁" + "▁".join(sorted(training_words))
    pieces = [
        vocabulary.id_to_piece(i)
        for i in range(vocabulary.vocab_size())
        if not (vocabulary.is_byte(i) or vocabulary.is_control(i) or vocabulary.is_unknown(i))
    ]
    assert len(pieces) > 200
    assert [piece for piece in pieces if piece not in spelt] == []


def test_unknown_words_are_spelt_out_and_come_back(vocabulary: sentencepiece.SentencePieceProcessor) -> None:
    text = "Zwölf Boxkämpfer jagen the dessert"
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.unk_id() not in ids
