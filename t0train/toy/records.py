"""The language of the toy P3: its words, and how records are drawn from them. All of it is our own.

A record's index decides its label, so that every label is equally frequent.
"""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

POSITIVE = (
    *(
        "great",
        "wonderful",
        "lovely",
        "brilliant",
        "superb",
        "charming",
        "excellent",
        "delightful",
        "perfect",
        "pleasant",
    ),
    *("amazing", "splendid", "fine", "fantastic", "nice", "beautiful", "impressive", "terrific", "gorgeous", "joyful"),
)
NEGATIVE = (
    *("awful", "terrible", "boring", "horrible", "poor", "dreadful", "weak", "ugly", "dull", "annoying"),
    *("nasty", "lousy", "painful", "sad", "cheap", "miserable", "clumsy", "broken", "dirty", "useless"),
)

# What reviews speak about. The nouns of restaurants, which are held out, occur in no other dataset.
ASPECTS = {
    "movies": ("plot", "actor", "scene", "music", "ending", "dialogue", "camera", "costume"),
    "products": ("battery", "screen", "handle", "button", "cable", "colour", "package", "design"),
    "hotels": ("room", "bed", "pool", "lobby", "view", "bathroom", "carpet", "balcony"),
    "books": ("story", "chapter", "hero", "language", "cover", "style", "author", "page"),
    "restaurants": ("soup", "waiter", "dessert", "menu", "sauce", "salad", "wine", "fish"),
}

TOPICS = {
    "sports": (
        *("goal", "match", "coach", "team", "league", "stadium"),
        *("referee", "tennis", "runner", "medal", "player", "race"),
    ),
    "food": (
        *("recipe", "oven", "butter", "flour", "cheese", "bread"),
        *("kitchen", "sugar", "onion", "dinner", "cook", "taste"),
    ),
    "science": (
        *("atom", "planet", "laboratory", "experiment", "theory", "microscope"),
        *("galaxy", "molecule", "telescope", "physics", "cell", "fossil"),
    ),
    "money": (
        *("bank", "loan", "tax", "price", "market", "stock"),
        *("profit", "budget", "credit", "invoice", "salary", "debt"),
    ),
}
TOPIC_NAMES = tuple(TOPICS)
FILLERS = (
    *("today", "people", "again", "after", "before", "large", "small", "week"),
    *("year", "many", "city", "report", "group", "early", "late"),
)

NAMES = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry"),
    *("Ida", "Jonas", "Kira", "Leo", "Maria", "Noah", "Olga", "Paul"),
)
CITIES = ("Oslo", "Paris", "Rome", "Madrid", "Berlin", "Vienna", "Lima", "Cairo", "Tokyo", "Dublin")
THINGS = ("drum", "lamp", "kite", "spoon", "violin", "basket", "hammer", "mirror", "ladder", "bottle")

ToyRecord = dict[str, Any]

_CLAUSES = (
    "the {noun} was {word}",
    "I found the {noun} {word}",
    "what {a} {word} {noun}",
    "{a} {word} {noun} indeed",
    "the {noun} seemed {word} to me",
)
_NOISE = 0.3  # share of records that also hold a word which points to another label


def _pick(draw: Generator, words: tuple[str, ...], count: int) -> list[str]:
    """`count` different words."""
    return [words[i] for i in draw.choice(len(words), size=count, replace=False)]


def review(draw: Generator, index: int, count: int, domain: str) -> ToyRecord:
    """Two to four clauses, one polarity; in some records of three or more clauses one clause disagrees."""
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


def article(draw: Generator, index: int, count: int) -> ToyRecord:
    """Ten shuffled words: three of one topic among fillers; in some records one filler gives way to another topic."""
    label = index % len(TOPIC_NAMES)
    words = _pick(draw, TOPICS[TOPIC_NAMES[label]], 3) + _pick(draw, FILLERS, 7)
    if draw.random() < _NOISE:
        other = TOPIC_NAMES[(label + int(draw.integers(1, len(TOPIC_NAMES)))) % len(TOPIC_NAMES)]
        words[-1] = _pick(draw, TOPICS[other], 1)[0]
    draw.shuffle(words)
    return {"text": " ".join(words), "label": label, "offset": _offset(index, count)}


def title(draw: Generator, index: int, count: int) -> ToyRecord:
    """Six shuffled words: two of one topic among fillers."""
    label = index % len(TOPIC_NAMES)
    words = _pick(draw, TOPICS[TOPIC_NAMES[label]], 2) + _pick(draw, FILLERS, 4)
    draw.shuffle(words)
    return {"text": " ".join(words), "label": label, "offset": _offset(index, count)}


def topic_word(draw: Generator, index: int, count: int) -> ToyRecord:
    """One word of a topic."""
    label = index % len(TOPIC_NAMES)
    return {"word": _pick(draw, TOPICS[TOPIC_NAMES[label]], 1)[0], "label": label, "offset": _offset(index, count)}


def _offset(index: int, count: int) -> int:
    """The yes/no question is about topic (label + offset) % 4: the right one in half of the records, else another."""
    return 0 if index < count // 2 else 1 + index % (len(TOPIC_NAMES) - 1)


def polarity_word(draw: Generator, index: int, count: int) -> ToyRecord:
    """One adjective of a polarity."""
    label = index % 2
    return {"word": _pick(draw, POSITIVE if label else NEGATIVE, 1)[0], "label": label}


def fact(draw: Generator, index: int, count: int, ask: str) -> ToyRecord:
    """One fact about one person; of three options, person or value as `ask` says, only one occurs in the fact."""
    label = index % 3
    kind, values = ("place", CITIES) if index < count // 2 else ("thing", THINGS)
    options = _pick(draw, NAMES if ask == "person" else values, 3)
    person = options[label] if ask == "person" else _pick(draw, NAMES, 1)[0]
    value = options[label] if ask == "value" else _pick(draw, values, 1)[0]
    said = f"{person} lives in {value} ." if kind == "place" else f"{person} has the {value} ."
    return {"fact": said, "kind": kind, "person": person, "value": value, "options": options, "label": label}
