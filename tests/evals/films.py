"""A dataset of our own: records, templates in promptsource's format, and small vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece

from t0train.config import SuiteConfig, load_config
from t0train.data import prepare
from t0train.evals import EvalConfig
from t0train.tasks import Dataset
from t0train.training import train

COLOURS = ("red", "green", "blue")
RECORDS: list[dict[str, Any]] = [
    {
        "text": " ".join(["the film was", *(["very"] * (i % 4)), "good" if i % 3 else "not good"]),
        "label": int(i % 3 > 0),
        "colour": COLOURS[i * 7 % 3],
        # every eighth record lacks its own colour
        "options": [*COLOURS[i % 3 :], *COLOURS[: i % 3]] if i % 8 else ["yes", "no", COLOURS[(i * 7 + 1) % 3]],
        "long": i % 4 > 1,
    }
    for i in range(60)
]
CATALOGUE = {"films": Dataset(name="films", family="sentiment", stage="BASE", train_size=len(RECORDS))}
TEMPLATES = """
dataset: films
templates:
  a: !Template
    name: good or bad
    jinja: "{{text}} . is it good or bad ||| {{answer_choices[label]}}"
    answer_choices: bad ||| good
    metadata: !TemplateMetadata {original_task: true}
  b: !Template
    name: colour
    jinja: "which of these is the answer {{options | join(' ')}} {{text}} ||| {{colour}}"
    answer_choices: "{{options | join('|||')}}"
    metadata: !TemplateMetadata {original_task: false}
  c: !Template
    name: long ones only
    jinja: "{% if long %}{{text}} . yes or no ||| {{answer_choices[label]}}{% endif %}"
    answer_choices: no ||| yes
    metadata: !TemplateMetadata {original_task: true}
  d: !Template
    name: say it
    jinja: "{{colour}} ||| {{text}}"
    metadata: !TemplateMetadata {original_task: false}
"""


def write_films(folder: Path) -> Path:
    """`data/`, `templates/` and `catalogue.csv` in a folder."""
    for part in ("data/films/default", "templates/films"):
        (folder / part).mkdir(parents=True)
    for split, records in (("train", RECORDS[::-1]), ("validation", RECORDS)):  # a copy would be found to be trained on
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "data" / "films" / "default" / f"{split}.jsonl").write_text(lines)
    (folder / "templates" / "films" / "templates.yaml").write_text(TEMPLATES)
    (folder / "catalogue.csv").write_text(f"name,family,stage,train_size\nfilms,sentiment,BASE,{len(RECORDS)}\n")
    return folder


def films_config(folder: Path, suite: SuiteConfig, catalogue: dict[str, Dataset] | None = None) -> EvalConfig:
    """A suite on the records of `write_films(folder)`, or of other datasets that were written there likewise."""
    return EvalConfig(
        suite,
        source=str(folder / "data"),
        store=str(folder / "store"),
        catalogue=catalogue or CATALOGUE,
        templates=[folder / "templates"],
    )


def train_vocabulary(folder: Path, name: str, lines: list[str]) -> Path:
    """A sentencepiece model of a few hundred pieces; bytes spell what it does not know."""
    (folder / f"{name}.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / f"{name}.txt"),
        model_prefix=str(folder / name),
        vocab_size=320,
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return folder / f"{name}.model"


def train_on_films(folder: Path) -> Path:
    """Two steps on the records of `write_films(folder)`, with a checkpoint after each; the run names a suite."""
    lines = [str(record["text"]) + " red green blue yes no bad ?" for record in RECORDS]
    vocabulary = train_vocabulary(folder, "spiece", lines)
    suite = folder / "suite.yaml"
    suite.write_text("name: films_suite\ntasks:\n  - {dataset: films}\n")
    config = folder / "run.yaml"
    config.write_text(
        json.dumps(
            {
                "name": "small",
                "output": str(folder / "run"),
                "suite": str(suite),
                "leaks": {"held_out": "records"},
                "mixture": {"name": "catalogue"},
                "data": {
                    "source": str(folder / "data"),
                    "store": str(folder / "store"),
                    "vocabulary": str(vocabulary),
                    "catalogue": str(folder / "catalogue.csv"),
                    "templates": [str(folder / "templates")],
                    "max_inputs": 64,
                    "max_targets": 32,
                },
                "model": {"init_from": "random", "size": "tiny", "vocabulary_size": 384},
                "optimizer": {"lr": 0.01},
                "train": {
                    "steps": 2,
                    "batch": {"rows": 4},
                    "precision": "fp32",
                    "device": "cpu",
                    "checkpoint": {"every": 1},
                },
            }
        )
    )
    loaded = load_config(config)
    prepare(loaded, workers=1)
    train(loaded)
    return folder / "run"
