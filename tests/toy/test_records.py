"""The labels of the toy's records, worked out again from their text, and their balance."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from t0train.toy import DATASETS
from t0train.toy.records import ASPECTS, CITIES, NEGATIVE, POSITIVE, TOPICS
from tests.toy.conftest import Toy, choices_of, rendered

TRAINING = {"movies": 6, "products": 4, "hotels": 4, "books": 4, "news": 7, "titles": 4, "words": 3}
TRAINING |= {"wordtopic": 3, "where": 3, "who": 3}
HELD_OUT = {"restaurants": (4, 2), "mail": (3, 4), "about": (3, 2), "trip": (2, 3)}  # templates, choices
SPLITS = [(name, split) for name in TRAINING for split in ("train", "validation")] + [
    (name, "validation") for name in HELD_OUT
]


def test_the_collection_has_41_training_tasks_and_four_held_out_datasets(toy: Toy) -> None:
    assert sum(TRAINING.values()) == 41
    assert {name: len(toy.templates(name)) for name in TRAINING} == TRAINING
    assert {name: len(toy.templates(name)) for name in HELD_OUT} == {name: n for name, (n, _) in HELD_OUT.items()}
    assert all(len(toy.records(name, "train")) == 1500 for name in TRAINING)
    assert all(len(toy.records(name, "validation")) == 300 for name in HELD_OUT)
    assert {dataset.name for dataset in DATASETS if dataset.held_out} == set(HELD_OUT)


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_constant_answer_to_a_held_out_prompt_scores_exactly_chance(toy: Toy, name: str) -> None:
    choices = HELD_OUT[name][1]
    for template in toy.templates(name).values():
        gold: Counter[int] = Counter()
        for record in toy.records(name, "validation"):
            example = rendered(template, record)
            assert len(choices_of(example)) == len(set(choices_of(example))) == choices
            gold[choices_of(example).index(example.target)] += 1
        assert gold == dict.fromkeys(range(choices), 300 // choices)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("name", ["movies", "products", "hotels", "books", "restaurants"])
def test_a_review_is_labelled_by_the_majority_of_its_adjectives(toy: Toy, name: str) -> None:
    assert not set(POSITIVE) & set(NEGATIVE)
    for split in {split for dataset, split in SPLITS if dataset == name}:
        disagreeing = 0
        for record in toy.records(name, split):
            found = words_of(record["text"])
            good, bad = (sum(word in side for word in found) for side in (POSITIVE, NEGATIVE))
            assert record["label"] == (good > bad)
            assert good != bad
            assert 2 <= good + bad <= 4 == len(record["text"].split(" , ")) + 4 - (good + bad)
            assert sum(noun in found for noun in ASPECTS[name]) == good + bad
            disagreeing += min(good, bad)
        assert (
            0.1 < disagreeing / len(toy.records(name, split)) < 0.3
        )  # 30 % of the two thirds with three clauses or more


@pytest.mark.parametrize(("name", "field"), [("news", "text"), ("mail", "text"), ("about", "text"), ("titles", "text")])
def test_an_article_is_labelled_by_the_topic_of_most_of_its_words(toy: Toy, name: str, field: str) -> None:
    assert sum(len(words) for words in TOPICS.values()) == len(set().union(*TOPICS.values()))
    for split in {split for dataset, split in SPLITS if dataset == name}:
        for record in toy.records(name, split):
            counts = [sum(word in words for word in words_of(record[field])) for words in TOPICS.values()]
            assert record["label"] == counts.index(max(counts))
            assert sorted(counts)[-2] < max(counts) == (2 if name == "titles" else 3)


def test_single_words_have_the_label_of_their_list(toy: Toy) -> None:
    for split in ("train", "validation"):
        assert all((record["word"] in POSITIVE) == record["label"] for record in toy.records("words", split))
        assert all(
            record["word"] in list(TOPICS.values())[record["label"]] for record in toy.records("wordtopic", split)
        )


@pytest.mark.parametrize("name", ["where", "who", "trip"])
def test_one_option_stands_in_the_fact_and_it_is_the_label(toy: Toy, name: str) -> None:
    for split in {split for dataset, split in SPLITS if dataset == name}:
        for record in toy.records(name, split):
            in_fact = [option in words_of(record["fact"]) for option in record["options"]]
            assert in_fact == [choice == record["label"] for choice in range(3)]
            assert (record["kind"] == "place") == any(city in record["fact"] for city in CITIES)
            assert record["options"][record["label"]] == record["person" if name == "who" else "value"]


@pytest.mark.parametrize("name", ["news", "titles", "wordtopic", "about"])
def test_a_yes_or_no_question_names_the_right_topic_in_half_of_the_records(toy: Toy, name: str) -> None:
    templates = [template for template in toy.templates(name).values() if template.answer_choices == "no ||| yes"]
    assert templates
    for template in templates:
        answers: Counter[str] = Counter()
        records = toy.records(name, "validation")
        for record in records:
            example = rendered(template, record)
            text = record["text"] if "text" in record else record["word"]
            named = [topic for topic in words_of(example.input.replace(text, " ")) if topic in TOPICS]
            assert len(named) == 1
            assert (example.target == "yes") == (named[0] == list(TOPICS)[record["label"]])
            answers[example.target] += 1
        assert answers == {"yes": 150, "no": 150}


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_template_renders_every_record_to_one_of_its_choices(toy: Toy, name: str, split: str) -> None:
    for template in toy.templates(name).values():
        template.check_columns(toy.records(name, split)[0])
        for record in toy.records(name, split):
            example = rendered(template, record)
            assert example.target in choices_of(example)
            assert "{" not in example.input + example.target


@pytest.mark.parametrize("name", [*TRAINING, *HELD_OUT])
def test_labels_are_equally_frequent(toy: Toy, name: str) -> None:
    for split in {split for dataset, split in SPLITS if dataset == name}:
        counts = Counter(record["label"] for record in toy.records(name, split))
        assert len(set(counts.values())) == 1
