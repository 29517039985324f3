"""The datasets of the toy P3: ten to train on, four held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from numpy.random import Generator

from t0train.core.hashing import generator
from t0train.toy.records import Row, article, fact, polarity_word, review, title, topic_word


@dataclass(frozen=True)
class ToyDataset:
    """A toy dataset: how to draw row `index` of `count`, and whether it is trained on or held out."""

    name: str
    family: str
    make: Callable[[Generator, int, int], Row]
    held_out: bool = False

    def rows(self, split: str, count: int, seed: int) -> list[Row]:
        """`count` rows in random order: a pure function of its arguments."""
        draw = generator(seed, "toy", self.name, split)
        rows = [self.make(draw, index, count) for index in range(count)]
        return [rows[i] for i in draw.permutation(count)]


DATASETS = (
    ToyDataset("movies", "sentiment", partial(review, domain="movies")),
    ToyDataset("products", "sentiment", partial(review, domain="products")),
    ToyDataset("hotels", "sentiment", partial(review, domain="hotels")),
    ToyDataset("books", "sentiment", partial(review, domain="books")),
    ToyDataset("words", "sentiment", polarity_word),
    ToyDataset("news", "topic", article),
    ToyDataset("titles", "topic", title),
    ToyDataset("wordtopic", "topic", topic_word),
    ToyDataset("where", "lookup", partial(fact, ask="value")),
    ToyDataset("who", "lookup", partial(fact, ask="person")),
    ToyDataset("restaurants", "sentiment", partial(review, domain="restaurants"), held_out=True),
    ToyDataset("mail", "topic", article, held_out=True),
    ToyDataset("about", "topic", article, held_out=True),
    ToyDataset("trip", "lookup", partial(fact, ask="value"), held_out=True),
)
