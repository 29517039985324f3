"""Texts that scored rows share with training rows, against a count by hand and one with Python sets."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from t0train.config import RunConfig, SuiteConfig
from t0train.mixture import find_overlaps
from t0train.mixture.assemble import build_mixture
from t0train.results import OverlapReport
from tests.mixture.conftest import Collection


def write(collection: Collection, key: str, split: str, texts: list[str]) -> None:
    path = collection.folder / "rows" / key / "default" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "label": 0, "id": "same " * 20}) + "\n" for text in texts))


def compare(collection: Collection, *datasets: str, **leaks: Any) -> OverlapReport:
    run = RunConfig.model_validate(
        {
            "mixture": {"name": "catalogue", "include": ["pets", "tales"]},
            "data": collection.data().model_dump(),
            "leaks": leaks,
        }
    )
    suite = SuiteConfig.model_validate(
        {"name": "s", "tasks": [{"dataset": dataset, "split": "validation"} for dataset in datasets]}
    )
    return find_overlaps(build_mixture(run.mixture, run.data), suite, run)


def test_by_hand(collection: Collection) -> None:
    """3-grams. Row 0 has abc bcd cde, of which a training row holds bcd; row 1 all of its two; row 2 is too short."""
    write(collection, "pets", "train", ["z B, c d. z", "x y"])
    write(collection, "tales", "train", ["z z z", "k L (m) n"])
    write(collection, "exam", "validation", ["a b c d e", "K l m n!", "x y", "o p q"])
    report = compare(collection, "exam", ngram=3, threshold=0.5)
    (found,) = report.overlaps
    assert (found.rows, found.short, found.touched, found.overlapping) == (4, 1, 2, 1)
    assert found.sources == {"pets": 1, "tales": 1}
    examples = [(text.row, text.share, text.words, text.trained_dataset, text.trained_row) for text in found.examples]
    assert examples == [(1, 1.0, "k l m", "tales", 1), (0, pytest.approx(1 / 3), "b c d", "pets", 0)]
    assert report.not_compared == {}


def test_equals_python_sets_on_random_texts(collection: Collection) -> None:
    draw = random.Random(0)
    rows = {
        key: [" ".join(draw.choices(["a", "b", "c", "d"], k=draw.randint(1, 12))) for _ in range(number)]
        for key, number in (("pets", 1500), ("tales", 40), ("exam", 60))
    }
    write(collection, "pets", "train", rows["pets"])
    write(collection, "tales", "train", rows["tales"])
    write(collection, "exam", "validation", rows["exam"])

    def grams(text: str) -> list[str]:
        words = re.findall(r"\w+", text)
        return [" ".join(words[k : k + 6]) for k in range(len(words) - 5)]

    trained = {key: {gram for text in rows[key] for gram in grams(text)} for key in ("pets", "tales")}
    everything = trained["pets"] | trained["tales"]
    shares = [sum(g in everything for g in grams(text)) / len(grams(text)) for text in rows["exam"] if grams(text)]
    (found,) = compare(collection, "exam", ngram=6, threshold=0.6).overlaps
    assert found.short == sum(not grams(text) for text in rows["exam"]) > 0
    assert found.touched == sum(share > 0 for share in shares)
    assert found.overlapping == sum(share >= 0.6 for share in shares) < found.touched
    assert found.sources == {
        key: sum(any(gram in grams_of for gram in grams(text)) for text in rows["exam"])
        for key, grams_of in trained.items()
    }


def test_what_is_not_at_hand_is_said(collection: Collection) -> None:
    write(collection, "pets", "train", ["a b c d"])
    write(collection, "exam", "validation", ["a b c d"])
    report = compare(collection, "exam", "cars/old", "nothing", ngram=3)
    assert [found.dataset for found in report.overlaps] == ["exam"]
    assert set(report.not_compared) == {"cars/old", "nothing", "tales"}
    assert report.not_compared["tales"].startswith("no folder ")  # the name stands beside it already
    assert compare(collection, "cars/old").overlaps == ()


def test_big_bench_is_not_compared_and_that_is_said(collection: Collection) -> None:
    write(collection, "pets", "train", ["a b c d"])
    mixture = {"name": "catalogue", "include": ["pets"]}
    run = RunConfig.model_validate({"mixture": mixture, "data": collection.data().model_dump()})
    suite = SuiteConfig.model_validate({"name": "s", "tasks": [{"dataset": "winowhy", "kind": "bigbench"}]})
    report = find_overlaps(build_mixture(run.mixture, run.data), suite, run)
    assert report.not_compared == {"winowhy": "the examples of BIG-bench are not compared"}


def test_columns_that_no_template_reads_do_not_count(collection: Collection, tmp_path: Path) -> None:
    """The column id is the same twenty words in every row."""
    write(collection, "pets", "train", ["a b c d"])
    write(collection, "tales", "train", ["a b c d"])
    write(collection, "exam", "validation", ["e f g h"])
    assert compare(collection, "exam", ngram=3).overlaps[0].touched == 0
