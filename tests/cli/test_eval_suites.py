"""`t0train eval` on an exported model and suites of every kind: what is printed, listed and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from t0train.data import load_vocabulary
from t0train.model import export_model, init_model
from tests.cli.test_eval import t0train
from tests.evals.films import RECORDS, train_vocabulary, write_films

SUITE = """
name: mixed
tasks:
  - {dataset: films, metrics: [f1], caveat: the films are made up}
  - {dataset: films, split: test}
  - {dataset: films, split: train, kind: generate, metrics: [rougeL, bleu], max_new_tokens: 4}
  - {dataset: colours, kind: bigbench}
  - {dataset: sounds, kind: bigbench}
probes:
  - {name: a greeting, input: "good film ?"}
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = write_films(tmp_path_factory.mktemp("films"))
    lines = [str(record["text"]) + " red green blue yes no bad ?" for record in RECORDS]
    vocabulary = train_vocabulary(folder, "spiece", lines)
    size = load_vocabulary(vocabulary).size
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    export_model(init_model("tiny", vocab_size=size, **sizes), folder / "exported", vocabulary)
    export_model(init_model("tiny", seed=1, vocab_size=size, **sizes), folder / "other", vocabulary)
    examples = [{"input": "grass", "target_scores": {"red": 0, "green": 1}}, {"input": "sea", "target": "blue"}]
    (folder / "data" / "bigbench" / "colours").mkdir(parents=True)
    (folder / "data" / "bigbench" / "colours" / "task.json").write_text(json.dumps({"examples": examples}))
    return folder


def evaluate(films: Path, text: str, out: Path, *options: str, model: str = "exported") -> Any:
    path = films / "suite.yaml"
    where = {"data": films / "data", "catalogue": films / "catalogue.csv", "templates": [str(films / "templates")]}
    path.write_text(text + "".join(f"{key}: {value}\n" for key, value in where.items()))
    return t0train("eval", films / model, "--suite", path, "--store", films / "store", "--out", out, *options)


def test_a_suite_of_every_kind(films: Path, tmp_path: Path) -> None:
    ended = evaluate(films, SUITE, tmp_path)
    assert ended.returncode == 0, ended.stderr
    for text in (
        "accuracy in %",
        "f1: median",
        "what it writes, in %",
        "rougeL",
        "bigbench/colours default",
        "a greeting",
        "films: the films are made up",
        "missing: 2 of the suite's 5 datasets",
        "films test: no split 'test'",
        "bigbench/sounds default: no task.json",
        "generations.parquet",
    ):
        assert text in ended.stdout
    document = json.loads((tmp_path / "results.json").read_text())
    assert [(task["dataset"], task["split"]) for task in document["tasks"]] == [
        ("films", "validation"),
        ("bigbench/colours", "default"),
    ]
    assert [task["dataset"] for task in document["generated"]] == ["films"]
    assert [(one["dataset"], one["split"]) for one in document["missing"]] == [
        ("films", "test"),
        ("bigbench/sounds", "default"),
    ]
    assert document["probes"][0]["input"] == "good film ?"


def test_prompts_are_listed_with_their_remarks(films: Path, tmp_path: Path) -> None:
    ended = evaluate(films, "name: bb\ntasks:\n  - {dataset: colours, kind: bigbench}\n", tmp_path, "--prompts")
    assert ended.returncode == 0, ended.stderr
    assert "examples without target scores, skipped: 1" in ended.stdout


def test_what_cannot_be_done_is_one_message(films: Path, tmp_path: Path) -> None:
    plain = "name: plain\ntasks:\n  - {dataset: films, prompts: [colour]}\n"
    assert evaluate(films, plain, tmp_path / "out", "--limit", "4").returncode == 0
    (shutil.copytree(films / "exported", films / "no_vocabulary") / "spiece.model").unlink()
    for text, model, out, complaint in (
        (plain, "other", tmp_path / "out", f"of model '{films / 'exported'}', these are of model '{films / 'other'}'"),
        (plain.replace("name: plain", "name: bare"), "exported", tmp_path / "out", "of suite 'plain'"),
        (plain.replace("colour", "color"), "exported", tmp_path / "new", "did you mean 'colour'"),
        (plain.replace("films,", "film,"), "exported", tmp_path / "new", "did you mean 'films'? A run brings its own"),
        (plain, "no_vocabulary", tmp_path / "new", "has no spiece.model"),
        (plain.replace("films,", "films, split: test,"), "exported", tmp_path / "new", "none of the suite's 1 tables"),
        ("name: empty\n", "exported", tmp_path / "new", "a suite needs tasks or probes"),
        (plain.replace("[colour]", "[say it]"), "exported", tmp_path / "new", "both selected"),
    ):
        ended = evaluate(films, text, out, "--limit", "4", model=model)
        assert ended.returncode == 2, ended.stdout
        assert complaint in " ".join(ended.stderr.split())
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / "new" / "results.json").exists()
