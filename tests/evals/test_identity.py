"""The identities in results: two results may be compared record by record where they are equal, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from t0train.config import SuiteConfig
from t0train.core.errors import UserError
from t0train.data import Vocabulary, load_vocabulary
from t0train.evals import EvalModel, datasets, evaluate_model
from tests.evals.conftest import small_model
from tests.evals.films import RECORDS, films_config, train_vocabulary, write_films
from tests.evals.test_bigbench import COLOURS, write

RANKED = ["colour", "good or bad", "long ones only"]
WRITTEN = "say it"
BIG = "colours"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = write_films(tmp_path / "films")
    write(folder / "data" / "bigbench" / BIG, COLOURS)
    return folder


def identities(films: Path, vocabulary: Vocabulary, limit: int = 3, metric: str = "contains") -> dict[str, Any]:
    """Revision of each dataset entry, identity of each prompt, as results.json has them."""
    written = {"dataset": "films", "kind": "generate", "metrics": [metric], "max_new_tokens": 2}
    tasks = [{"dataset": "films"}, {"dataset": BIG, "kind": "bigbench"}, written]
    config = films_config(films, SuiteConfig.model_validate({"name": "all", "tasks": tasks}))
    results = evaluate_model(EvalModel(small_model(vocabulary.size), vocabulary), replace(config, limit=limit))
    found = {entry.dataset: entry.revision for entry in results.scored}
    return found | {prompt.name: prompt.identity for entry in results.scored for prompt in entry.prompts}


def changed(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    assert first.keys() == second.keys() == {"films", f"bigbench/{BIG}", *RANKED, WRITTEN, BIG}
    return {key for key in first if first[key] != second[key]}


def test_the_same_data_have_the_same_identity_whatever_is_drawn(films: Path, vocabulary: Vocabulary) -> None:
    first = identities(films, vocabulary)
    assert len(set(first.values())) == len(first)
    assert not changed(first, identities(films, vocabulary, limit=4))


def test_other_records_texts_vocabularies_and_measures_are_distinguished(
    films: Path, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    first = identities(films, vocabulary)
    assert changed(first, identities(films, vocabulary, metric="exact_match")) == {WRITTEN}
    texts = [str(record["text"]) + " red green" for record in RECORDS]
    other = load_vocabulary(train_vocabulary(tmp_path, "other", texts))
    assert changed(first, identities(films, other)) == {*RANKED, WRITTEN, BIG}
    task = films / "data" / "bigbench" / BIG / "task.json"
    task.write_text(task.read_text().replace("grass", "lawn"))
    second = identities(films, vocabulary)
    assert changed(first, second) == {f"bigbench/{BIG}", BIG}
    templates = films / "templates" / "films" / "templates.yaml"
    templates.write_text(templates.read_text().replace("is it good or bad", "is it bad or good"))
    third = identities(films, vocabulary)
    assert changed(second, third) == {"good or bad"}
    records = films / "data" / "films" / "default" / "validation.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[::-1]))
    assert changed(third, identities(films, vocabulary)) == {"films", *RANKED, WRITTEN}


@pytest.mark.parametrize("kind", ["generation_prompts", "rank_prompts", "big_bench_prompts"])
def test_records_that_change_while_an_evaluation_reads_them_are_refused(
    films: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Results would pair the identity of some records with scores of others."""
    before = identities(films, vocabulary)
    real = getattr(datasets, kind)
    records = films / "data" / "films" / "default" / "validation.jsonl"
    task = films / "data" / "bigbench" / BIG / "task.json"

    def read_after_a_change(*arguments: Any) -> Any:
        records.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[::-1]))
        task.write_text(task.read_text().replace("grass", "lawn"))
        read = real(*arguments)
        task.write_text(task.read_text().replace("grass", "meadow"))
        return read

    with monkeypatch.context() as patch:
        patch.setattr(datasets, kind, read_after_a_change)
        with pytest.raises(UserError, match="changed while they were being read"):
            identities(films, vocabulary)
    assert changed(before, identities(films, vocabulary)) > {"films", f"bigbench/{BIG}"}
