"""Write the toy P3 into a folder: rows, templates, a catalogue and a vocabulary. Pure function of the seed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t0train.core.console import say
from t0train.core.errors import UserError
from t0train.core.files import atomic_folder, make_folder, remove_leftovers, write_json
from t0train.core.hashing import content_hash, file_sha256
from t0train.core.lock import hold_lock
from t0train.prompts import load_templates
from t0train.toy.datasets import DATASETS, ToyDataset
from t0train.toy.records import Row

TRAIN_ROWS = 1500
VALIDATION_ROWS = 300
VOCABULARY_SIZE = 640  # at most: training has words for some 600 pieces. configs/runs/toy.yaml has the same number

_TEMPLATES = Path(__file__).parent / "templates"
_MANIFEST = "toy.json"
_COLUMNS = ("name", "family", "stage", "held_out", "train_size", "licence")


def build_toy(folder: Path, seed: int = 0) -> bool:
    """Write the toy P3 into `folder`: data/, templates/, catalogue.csv, spiece.model, toy.json.

    Args:
        folder: a new or empty folder, or one that an earlier call wrote (brought up to date if need be).
        seed: seed of the rows.

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
    if present and present["key"] == _key(seed) and _intact(folder, present["files"]):
        return False
    with atomic_folder(folder, ours=[_MANIFEST]) as out:
        shutil.copytree(_TEMPLATES, out / "templates")
        texts: list[str] = []
        for dataset in DATASETS:
            for split, count in _splits(dataset):
                rows = dataset.rows(split, count, seed)
                _write_rows(out / "data" / dataset.name / "default" / f"{split}.jsonl", rows)
                if split == "train":
                    texts.extend(_prompted(dataset, rows))
        (out / "catalogue.csv").write_text(_catalogue(), encoding="utf-8")
        (out / "spiece.model").write_bytes(_train_vocabulary(texts))
        files = {str(path.relative_to(out)): file_sha256(path) for path in sorted(out.rglob("*")) if path.is_file()}
        write_json(out / _MANIFEST, {"key": _key(seed), "seed": seed, "files": files})
    return True


def _splits(dataset: ToyDataset) -> tuple[tuple[str, int], ...]:
    validation = ("validation", VALIDATION_ROWS)
    return (validation,) if dataset.held_out else (("train", TRAIN_ROWS), validation)


def _write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _prompted(dataset: ToyDataset, rows: list[Row]) -> Iterator[str]:
    """Inputs and targets of every row under every template: all the text that training will see."""
    for template in load_templates(dataset.name, folders=[_TEMPLATES]).values():
        for row in rows:
            rendered = template.render(row)
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
        stage = {"held_out": "BASE"} if dataset.held_out else {"stage": "BASE", "train_size": TRAIN_ROWS}
        table.writerow({"name": dataset.name, "family": dataset.family, "licence": "Apache-2.0", **stage})
    return text.getvalue()


def _key(seed: int) -> str:
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
