"""Rows of the toy P3. A row's index decides its label, so that every label is equally frequent."""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

from t0train.toy.words import (
    ASPECTS,
    CITIES,
    FILLERS,
    NAMES,
    NEGATIVE,
    POSITIVE,
    THINGS,
    TOPIC_NAMES,
    TOPICS,
)

Row = dict[str, Any]

_CLAUSES = (
    "the {noun} was {word}",
    "I found the {noun} {word}",
    "what {a} {word} {noun}",
    "{a} {word} {noun} indeed",
    "the {noun} seemed {word} to me",
)
_NOISE = 0.3  # share of rows that also hold a word which points to another label


def _pick(draw: Generator, words: tuple[str, ...], count: int) -> list[str]:
    """`count` different words."""
    return [words[i] for i in draw.choice(len(words), size=count, replace=False)]


def review(draw: Generator, index: int, count: int, domain: str) -> Row:
    """Two to four clauses, one polarity; in some rows of three or more clauses one clause disagrees."""
    label = index % 2
    clauses = int(draw.integers(2, 5))
    polarity = [label] * clauses
    if clauses > 2 and draw.random() < _NOISE:
        polarity[int(draw.integers(clauses))] = 1 - label
    nouns = _pick(draw, ASPECTS[domain], clauses)
    frames = [_CLAUSES[i] for i in draw.integers(len(_CLAUSES), size=clauses)]
    words = [str(draw.choice(POSITIVE if good else NEGATIVE)) for good in polarity]
    said = [
        frame.format(a="an" if word[0] in "aeiou" else "a", noun=noun, word=word)
        for frame, noun, word in zip(frames, nouns, words, strict=True)
    ]
    return {"text": " , ".join(said) + " .", "label": label}


def article(draw: Generator, index: int, count: int) -> Row:
    """Ten shuffled words: three of one topic among fillers; in some rows one filler gives way to another topic."""
    label = index % len(TOPIC_NAMES)
    words = _pick(draw, TOPICS[TOPIC_NAMES[label]], 3) + _pick(draw, FILLERS, 7)
    if draw.random() < _NOISE:
        other = TOPIC_NAMES[(label + int(draw.integers(1, len(TOPIC_NAMES)))) % len(TOPIC_NAMES)]
        words[-1] = _pick(draw, TOPICS[other], 1)[0]
    draw.shuffle(words)
    return {"text": " ".join(words), "label": label, "asked": _asked(index, count)}


def title(draw: Generator, index: int, count: int) -> Row:
    """Six shuffled words: two of one topic among fillers."""
    label = index % len(TOPIC_NAMES)
    words = _pick(draw, TOPICS[TOPIC_NAMES[label]], 2) + _pick(draw, FILLERS, 4)
    draw.shuffle(words)
    return {"text": " ".join(words), "label": label, "asked": _asked(index, count)}


def topic_word(draw: Generator, index: int, count: int) -> Row:
    """One word of a topic."""
    label = index % len(TOPIC_NAMES)
    return {"word": _pick(draw, TOPICS[TOPIC_NAMES[label]], 1)[0], "label": label, "asked": _asked(index, count)}


def _asked(index: int, count: int) -> int:
    """The yes/no question is about topic (label + asked) % 4: the right one in half of the rows, else a wrong one."""
    return 0 if index < count // 2 else 1 + index % (len(TOPIC_NAMES) - 1)


def polarity_word(draw: Generator, index: int, count: int) -> Row:
    """One adjective of a polarity."""
    label = index % 2
    return {"word": _pick(draw, POSITIVE if label else NEGATIVE, 1)[0], "label": label}


def fact(draw: Generator, index: int, count: int, ask: str) -> Row:
    """One fact about one person; of three options, person or value as `ask` says, only one stands in the fact."""
    label = index % 3
    kind, values = ("place", CITIES) if index < count // 2 else ("thing", THINGS)
    options = _pick(draw, NAMES if ask == "person" else values, 3)
    person = options[label] if ask == "person" else _pick(draw, NAMES, 1)[0]
    value = options[label] if ask == "value" else _pick(draw, values, 1)[0]
    said = f"{person} lives in {value} ." if kind == "place" else f"{person} has the {value} ."
    return {"fact": said, "kind": kind, "person": person, "value": value, "options": options, "label": label}
