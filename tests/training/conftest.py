"""A world of its own: two small datasets, three templates, a vocabulary and a prepared token store."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from t0train.config import RunConfig

VOCABULARY_SIZE = 320

TEMPLATES = {
    "colours": {
        "which": "Is it red, green or blue? {{ text }} ||| {{ answer_choices[label] }}",
        "name it": "{{ text }}\nName the colour. ||| {{ answer_choices[label] }}",
    },
    "counting": {"how many": "How many words? {{ text }} ||| {{ count }} words, the first is {{ text.split()[0] }}"},
}
CHOICES = {"colours": "red ||| green ||| blue", "counting": None}


def rows_of(dataset: str, count: int, seed: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    things = {0: ["brick", "rose", "blood"], 1: ["grass", "leaf", "frog"], 2: ["sky", "sea", "ink"]}
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        label = int(generator.integers(3))
        words = [things[label][int(i)] for i in generator.integers(3, size=int(generator.integers(2, 7)))]
        text = " ".join(words)
        rows.append({"text": text, "label": label} if dataset == "colours" else {"text": text, "count": len(words)})
    return rows


def write_templates(folder: Path) -> None:
    for dataset, templates in TEMPLATES.items():
        lines = [f"dataset: {dataset}", "templates:"]
        for number, (name, jinja) in enumerate(templates.items()):
            choices = CHOICES[dataset]
            lines += [
                f"  {dataset}-{number}: !Template",
                f"    answer_choices: {json.dumps(choices)}",
                f"    id: {dataset}-{number}",
                f"    jinja: {json.dumps(jinja)}",
                "    metadata: !TemplateMetadata",
                f"      choices_in_prompt: {json.dumps(choices is not None)}",
                "      metrics: [Accuracy]",
                "      original_task: true",
                f"    name: {name}",
                "    reference: ''",
            ]
        path = folder / dataset / "templates.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_vocabulary(path: Path, texts: list[str]) -> None:
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
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with data/, templates/, catalogue.csv, spiece.model, store/ and run.yaml."""
    from t0train.config import load_config
    from t0train.data import prepare

    folder = tmp_path_factory.mktemp("world")
    texts = []
    for seed, dataset in enumerate(TEMPLATES):
        rows = rows_of(dataset, 400, seed)
        path = folder / "data" / dataset / "default" / "train.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        texts += [row["text"] for row in rows] + list(TEMPLATES[dataset].values())
    write_templates(folder / "templates")
    write_vocabulary(folder / "spiece.model", texts)
    (folder / "catalogue.csv").write_text(
        "name,family,stage,held_out,train_size,licence\n"
        + "".join(f"{dataset},small,BASE,,400,Apache-2.0\n" for dataset in TEMPLATES),
        encoding="utf-8",
    )
    settings = {
        "name": "world",
        "output": str(folder / "unused"),
        "mixture": {"name": "catalogue", "rate": "equal"},
        "data": {
            "source": str(folder / "data"),
            "store": str(folder / "store"),
            "vocabulary": str(folder / "spiece.model"),
            "catalogue": str(folder / "catalogue.csv"),
            "templates": [str(folder / "templates")],
            "max_inputs": 48,
            "max_targets": 24,
        },
        "model": {"init_from": "random", "size": "tiny", "vocabulary_size": VOCABULARY_SIZE, "dropout": 0.1},
        "optimizer": {"lr": 0.01},
        "train": {
            "steps": 40,
            "batch": {"rows": 4, "micro_batch_rows": 2},
            "precision": "fp32",
            "device": "cpu",
            "checkpoint": {"every": 10},
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    prepare(load_config(folder / "run.yaml"))
    return folder


@pytest.fixture
def configure(world: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """A function from overrides to a run configuration with the output folder `tmp_path/run`."""
    from t0train.config import load_config

    def build(*overrides: str) -> RunConfig:
        return load_config(world / "run.yaml", [f"output={tmp_path / 'run'}", *overrides])

    return build


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are slowest on many threads; and a subprocess with OMP_NUM_THREADS=1 must compute the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def straight(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of 40 steps without a break."""
    from t0train.config import load_config
    from t0train.training import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(load_config(world / "run.yaml", [f"output={folder}"]))
    return folder
