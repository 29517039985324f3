"""Whole evaluations against Hugging Face's T5, one choice at a time: every dataset with choices of the real records.

Three records of each dataset under two prompts, three examples of each task of BIG-bench; for more (an hour at most):

    T0TRAIN_ITEMS=200 pytest -s tests/evals/test_naive_loop.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t0train.config import SuiteConfig
from t0train.core.hashing import derive_seed
from t0train.data import load_vocabulary
from t0train.evals import EvalConfig, EvalModel, evaluate_model
from t0train.evals.bigbench import read_task
from t0train.model import to_huggingface
from t0train.prompts import load_templates
from t0train.tasks import load_catalogue, open_table
from tests.evals.conftest import small_model
from tests.evals.test_bigbench import RECORDS as BIG_BENCH
from tests.evals.test_evaluation import AVAILABLE
from tests.evals.test_rank import one_choice_at_a_time

pytestmark = pytest.mark.slow

ITEMS = int(os.environ.get("T0TRAIN_ITEMS", "3"))
TOLERANCE = 1e-4


def splits() -> dict[str, str]:
    """The slices of the other tests, or longer ones where these are too short."""
    return (
        AVAILABLE if ITEMS <= 20 else {key: f"{split.partition('[')[0]}[:{ITEMS}]" for key, split in AVAILABLE.items()}
    )


def texts(lines: list[dict[str, Any]], source: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Input and choices of every scored item, from templates, records and files."""
    tasks = {name: read_task(source / "bigbench" / name, name)[0] for name in BIG_BENCH}
    records: dict[str, list[dict[str, Any]]] = {}
    found: list[tuple[str, tuple[str, ...]]] = []
    for line in lines:
        if line["dataset"].startswith("bigbench/"):
            example = tasks[line["prompt"]].examples[line["record"]]
            found.append((example.text, example.choices))
            continue
        dataset = load_catalogue()[line["dataset"]]
        if dataset.key not in records:
            records[dataset.key] = open_table(dataset, line["split"], str(source)).records()
        template = load_templates(*dataset.origin)[line["prompt"]]
        seed = derive_seed(0, line["task"], line["record"]) if template.is_random else 0
        rendered = template.render(records[dataset.key][line["record"]], seed)
        assert rendered is not None
        assert rendered.choices is not None
        found.append((rendered.input, rendered.choices))
    return found


def test_scores_equal_a_loop_over_single_choices_on_every_dataset(
    real_data: Path, promptsource_folder: Path, t5_vocabulary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary, model = load_vocabulary(t5_vocabulary), small_model(32_128, d_model=32, num_layers=1)
    tasks: list[dict[str, Any]] = [{"dataset": key, "split": split, "prompts": 2} for key, split in splits().items()]
    tasks += [{"dataset": name, "kind": "bigbench"} for name in BIG_BENCH]
    suite = SuiteConfig.model_validate({"name": "all", "tasks": tasks})
    results = evaluate_model(
        EvalModel(model, vocabulary),
        EvalConfig(suite, source=str(real_data), store=str(tmp_path), limit=ITEMS),
    )
    assert not results.missing
    lines = results.scores.to_pylist()
    assert {line["dataset"] for line in lines} == {*AVAILABLE, *(f"bigbench/{name}" for name in BIG_BENCH)}
    ids = [
        (
            vocabulary.encode(text)[:1024],
            [np.append(cut, np.uint16(1))[:256] for cut in vocabulary.encode_many(choices)],
        )
        for text, choices in texts(lines, real_data)
    ]
    expected = one_choice_at_a_time(to_huggingface(model), ids)
    worst, near_ties = 0.0, 0
    for line, values in zip(lines, expected, strict=True):
        worst = max(worst, float(np.abs(np.array(line["scores"]) - values).max()))
        if line["prediction"] != values.argmax():
            near_ties += 1
            assert values.max() - values[line["prediction"]] < TOLERANCE, line
    with capsys.disabled():
        print(f"\n{len(lines)} items, {len(tasks)} datasets: scores differ by {worst:.1e}, {near_ties} predictions")
    assert worst < TOLERANCE
