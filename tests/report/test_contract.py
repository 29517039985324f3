"""What evaluation writes is what reports read: two small models on one suite, from records to the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t0train.config import SuiteConfig
from t0train.data import load_vocabulary
from t0train.evals import EvalModel, evaluate_model
from t0train.model import init_model
from t0train.results import EvaluatedModel
from tests.evals.films import RECORDS, films_config, train_vocabulary, write_films
from tests.report.conftest import WriteRun, cells, markdown, section

SUITE = {
    "name": "films",
    "tasks": [
        {"dataset": "films", "metrics": ["f1"]},
        {"dataset": "films", "kind": "generate", "metrics": ["token_f1", "bleu"], "max_new_tokens": 3, "limit": 6},
        {"dataset": "films", "split": "test"},
    ],
    "probes": [{"name": "hello", "input": "is it good ?"}],
}


@pytest.mark.slow
def test_evaluations_become_a_report(write_run: WriteRun, tmp_path: Path) -> None:
    films = write_films(tmp_path / "films")
    vocabulary = load_vocabulary(train_vocabulary(films, "spiece", [str(record["text"]) for record in RECORDS]))
    runs = []
    for seed, name in enumerate(("one", "two", "other_records")):
        if name == "other_records":
            path = films / "data" / "films" / "default" / "validation.jsonl"
            path.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS[::-1]))
        model = init_model("tiny", seed=seed, vocab_size=vocabulary.size).eval()
        results = evaluate_model(
            EvalModel(model, vocabulary, EvaluatedModel(name=name, step=7)),
            films_config(films, SuiteConfig.model_validate(SUITE)),
        )
        runs.append(write_run(name))
        results.write(runs[-1] / "eval" / "films")
    text = markdown(runs, tmp_path / "out")
    compared = section(text, "Comparison")
    # ranked under three prompts on 60 records; generated under one, on the 6 records that are drawn
    assert cells(compared, "films", "validation", "two", "3", "60")
    assert cells(compared, "films", "validation", "two", "1", "6")
    assert "other_records and one, films, not compared: films, films: the records are different ones" in compared
    assert "| other_records |" not in compared
    f1 = cells(text, "films", "validation", "one", "f1")
    assert "[" in f1[4]
    assert "-" not in f1[5:]
    assert cells(section(text, "Generated answers"), "films", "validation", "one", "token_f1")[8] != "-"
    assert (
        cells(text, "films", "validation", "one, two, other_records", "applies to a part of the records")[4] == "1 of 3"
    )
    assert "one, two, other_records, films: films test: " in section(text, "Not evaluated")
