"""Metrics against the libraries that define them, called here in their own way, and cases worked by hand."""

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from t0train.results.metrics import constant_answer, contains, corpus_bleu, exact_match, item_scores, normalise

OUTPUTS = [
    "The cat sat on the mat.",
    "a storm closed the harbour for two days",
    "",
    "Paris, France",
    "he said that it was over , and left",
    "the the the dog",
]
REFERENCES = [
    ["A cat sat on a mat", "the dog sat on the mat"],
    ["The harbour was closed for two days by a storm."],
    ["nothing at all"],
    ["Paris", "paris france", "the capital"],
    ["It was over, he said, and he left."],
    ["dog"],
]


def test_rouge_is_that_of_rouge_score() -> None:
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names)
    for name in names:
        expected = [
            max(scorer.score(right, output)[name].fmeasure for right in rights)
            for output, rights in zip(OUTPUTS, REFERENCES, strict=True)
        ]
        assert item_scores(name, OUTPUTS, REFERENCES) == pytest.approx(expected)
        assert 0 < np.mean(expected) < 1


def test_bleu_is_that_of_sacrebleu() -> None:
    first = [rights[0] for rights in REFERENCES]
    expected = sacrebleu.corpus_bleu(OUTPUTS, [first]).score / 100
    assert corpus_bleu(OUTPUTS, [[right] for right in first]) == pytest.approx(expected)
    assert 0 < expected < 1


def test_bleu_with_a_different_number_of_references() -> None:
    """A reference that repeats another adds nothing, so it may fill the gaps."""
    most = max(map(len, REFERENCES))
    filled = [[*rights, *[rights[0]] * (most - len(rights))] for rights in REFERENCES]
    expected = sacrebleu.corpus_bleu(OUTPUTS, [list(stream) for stream in zip(*filled, strict=True)]).score / 100
    assert corpus_bleu(OUTPUTS, REFERENCES) == pytest.approx(expected)
    assert corpus_bleu(["the cat sat on the mat"], [["the cat sat on the mat"]]) == pytest.approx(1.0)


def squad_words(text: str) -> list[str]:
    """SQuAD's rules, one after the other: lower case, punctuation out, articles out, split at white space."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(output: str, right: str) -> float:
    found, expected = squad_words(output), squad_words(right)
    same = sum((Counter(found) & Counter(expected)).values())
    if not found or not expected:
        return float(found == expected)
    if not same:
        return 0.0
    precision, recall = same / len(found), same / len(expected)
    return 2 * precision * recall / (precision + recall)


def test_token_f1_is_squads() -> None:
    random = np.random.default_rng(0)
    words = ["The", "a", "cat", "Cat.", "dog", "sat", "-", "mat's", "two", "an", "U.S."]
    texts = [" ".join(random.choice(words, random.integers(0, 7))) for _ in range(300)]
    outputs, rights = texts[:150], texts[150:]
    expected = [squad_f1(output, right) for output, right in zip(outputs, rights, strict=True)]
    assert item_scores("token_f1", outputs, [[right] for right in rights]) == pytest.approx(expected)
    assert 0 < np.mean(expected) < 1


def test_best_of_several_references_counts() -> None:
    assert item_scores("token_f1", ["Paris, France"], [["Rome", "paris france"]]).tolist() == [1.0]
    assert item_scores("exact_match", ["Paris, France"], [["Paris", "Rome"]]).tolist() == [0.0]
    assert item_scores("token_f1", ["Paris, France"], [["Paris", "Rome"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("output", "right", "same", "found"),
    [
        ("The nurse", "the nurse", 1, 1),
        ("nurse.", "The nurse", 1, 1),
        ("she means the NURSE, surely", "the nurse", 0, 1),
        ("the nurses", "the nurse", 0, 0),
        ("the developer", "the nurse", 0, 0),
        ("a construction worker", "The construction worker", 1, 1),
        ("construction", "The construction worker", 0, 0),
        ("", "the nurse", 0, 0),
    ],
)
def test_exact_match_and_the_noun_in_the_answer(output: str, right: str, same: float, found: float) -> None:
    assert exact_match(output, right) == same
    assert contains(output, right) == found


def test_normalisation_is_squads() -> None:
    assert normalise("  The  U.S. was an  answer - to a 'THE' theory!") == "us was answer to theory"


def test_constant_answer_is_right_in_the_most_records() -> None:
    """A record that names a text twice counts once; of equally frequent texts the first is taken."""
    assert constant_answer([["a", "a", "a"], ["b"], ["c", "b"], ["a"], ["b"]]) == "b"
    assert constant_answer([["z"], ["y"]]) == "z"
