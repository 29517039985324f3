"""The datasets of the toy P3, and how they are written: records, templates, a catalogue and a vocabulary.

What is written is a pure function of the seed.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.random import Generator

from t0train.core.console import say
from t0train.core.errors import UserError
from t0train.core.files import atomic_folder, make_folder, remove_leftovers, write_json
from t0train.core.hashing import content_hash, file_sha256, generator
from t0train.core.lock import hold_lock
from t0train.prompts import load_templates
from t0train.toy.records import ToyRecord, article, fact, polarity_word, review, title, topic_word


@dataclass(frozen=True)
class ToyDataset:
    """A toy dataset: how to draw record `index` of `count`, and whether it is trained on or held out."""

    name: str
    family: str
    make: Callable[[Generator, int, int], ToyRecord]
    held_out: bool = False

    def records(self, split: str, count: int, seed: int) -> list[ToyRecord]:
        """`count` records in random order: a pure function of its arguments."""
        draw = generator(seed, "toy", self.name, split)
        records = [self.make(draw, index, count) for index in range(count)]
        return [records[i] for i in draw.permutation(count)]


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


TRAIN_RECORDS = 1500
VALIDATION_RECORDS = 300
VOCABULARY_SIZE = 640  # at most: training has words for some 600 pieces. configs/runs/toy.yaml has the same number

_TEMPLATES = Path(__file__).parent / "templates"
_MANIFEST = "toy.json"
_COLUMNS = ("name", "family", "stage", "held_out", "train_size", "licence")


def build_toy(folder: Path, seed: int = 0) -> bool:
    """Write the toy P3 into `folder`: data/, templates/, catalogue.csv, spiece.model, toy.json.

    Args:
        folder: a new or empty folder, or one that an earlier call wrote (brought up to date if need be).
        seed: seed of the records.

    Returns:
        False when the folder already held exactly this, True when it was written.

    Raises:
        UserError: the folder holds files that are not the toy's, or cannot be written.
    """
    place = folder.absolute()
    make_folder(place.parent)
    with hold_lock(place.parent / f".{place.name[:100]}.lock", f"writing the toy P3 into {folder}", say):
        remove_leftovers(place.parent)
        return _build(folder, seed)


def _build(folder: Path, seed: int) -> bool:
    present = _written_before(folder)
    if present and present["key"] == _source_hash(seed) and _intact(folder, present["files"]):
        return False
    with atomic_folder(folder, ours=[_MANIFEST]) as out:
        shutil.copytree(_TEMPLATES, out / "templates")
        texts: list[str] = []
        for dataset in DATASETS:
            for split, count in _splits(dataset):
                records = dataset.records(split, count, seed)
                _write_records(out / "data" / dataset.name / "default" / f"{split}.jsonl", records)
                if split == "train":
                    texts.extend(_prompted(dataset, records))
        (out / "catalogue.csv").write_text(_catalogue(), encoding="utf-8")
        (out / "spiece.model").write_bytes(_train_vocabulary(texts))
        files = {str(path.relative_to(out)): file_sha256(path) for path in sorted(out.rglob("*")) if path.is_file()}
        write_json(out / _MANIFEST, {"key": _source_hash(seed), "seed": seed, "files": files})
    return True


def _splits(dataset: ToyDataset) -> tuple[tuple[str, int], ...]:
    validation = ("validation", VALIDATION_RECORDS)
    return (validation,) if dataset.held_out else (("train", TRAIN_RECORDS), validation)


def _write_records(path: Path, records: list[ToyRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _prompted(dataset: ToyDataset, records: list[ToyRecord]) -> Iterator[str]:
    """Inputs and targets of every record under every template: all the text that training will see."""
    for template in load_templates(dataset.name, folders=[_TEMPLATES]).values():
        for record in records:
            rendered = template.render(record)
            if rendered is not None:
                yield rendered.input
                yield rendered.target


def _train_vocabulary(texts: list[str]) -> bytes:
    """A unigram vocabulary with T5's special ids; bytes spell out the words that training does not have."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=VOCABULARY_SIZE,
        hard_vocab_limit=False,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,  # float sums in one order: the same bytes every time
        minloglevel=2,
    )
    return model.getvalue()


def _catalogue() -> str:
    """The toy's datasets in the columns of t0train's own catalogue."""
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for dataset in DATASETS:
        stage = {"held_out": "BASE"} if dataset.held_out else {"stage": "BASE", "train_size": TRAIN_RECORDS}
        table.writerow({"name": dataset.name, "family": dataset.family, "licence": "Apache-2.0", **stage})
    return text.getvalue()


def _source_hash(seed: int) -> str:
    """Identity of what would be written: the seed and the code and templates that make it."""
    sources = sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in {".py", ".yaml"})
    return content_hash([seed, [file_sha256(path) for path in sources]])


def _written_before(folder: Path) -> dict[str, Any] | None:
    """The manifest of an earlier call, or None for a new or empty folder; refuses folders with anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        known = {folder / name for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not empty and was not written by `t0train toy`; name a new or an empty folder."
        ) from error
    foreign = sorted(path for path in folder.rglob("*") if path.is_file() and path not in known)
    foreign = [path for path in foreign if path != folder / _MANIFEST]
    if foreign:
        raise UserError(
            f"{folder} holds files that `t0train toy` did not write, {foreign[0].relative_to(folder)} for one "
            f"({len(foreign)} in all); move them away or name another folder."
        )
    return manifest


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all((folder / name).is_file() and file_sha256(folder / name) == digest for name, digest in files.items())
