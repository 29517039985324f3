"""The model card, as the hub's own reader reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from t0train.report import TrainedDataset, build_card
from tests.report.conftest import WriteRun, results, step_event

MIXTURE = [
    TrainedDataset("glue/mrpc", templates=7, probability=0.25),
    TrainedDataset("imdb", templates=11, probability=0.75),
]
EVENTS = [
    {"kind": "start", "mixture": "0123abcd", "probabilities": {"a": 1.0}, "remarks": ["dropped: c"]},
    *(step_event(step, {"a": 10}) for step in (1, 2, 3)),
]


@pytest.fixture
def run(write_run: WriteRun) -> Path:
    suite = results({"crows_pairs": [0.9, 0.7, 0.8]})
    suite["model"]["step"] = 2
    suite["tasks"][0]["caveat"] = "It measures something else."
    suite["missing"] = [{"dataset": "mail", "split": "test", "reason": "no folder mail"}]
    model = {"init_from": "google/t5-small-lm-adapt"}
    return write_run(events=EVENTS, suites={"bias": suite}, optimizer={"lr": 0.01}, model=model)


def test_header_is_what_the_hub_reads(run: Path) -> None:
    header = build_card(run, 0, [], ["nyu-mll/glue", "stanfordnlp/imdb", "nyu-mll/glue"]).header
    data = ModelCard(f"---\n{header}---\n# text").data.to_dict()
    assert data["datasets"] == ["nyu-mll/glue", "stanfordnlp/imdb"]
    assert data["base_model"] == "google/t5-small-lm-adapt"
    assert "t0" in data["tags"]
    assert data["language"] == "en"


def test_random_weights_have_no_base_model(write_run: WriteRun) -> None:
    run = write_run(model={"init_from": "random", "size": "tiny"})
    assert "base_model" not in build_card(run, 0, []).header
    assert "datasets" not in build_card(run, 0, []).header
    assert "random weights, tiny" in build_card(run, 0, []).text


def test_card_holds_data_recipe_deviations_results_and_caveats(run: Path) -> None:
    text = build_card(run, 2, MIXTURE).text
    assert "hash 0123abcd" in text
    assert "- dropped: c." in text
    assert text.index("| imdb | 11 | 75.00 |") < text.index("| glue/mrpc | 7 | 25.00 |")
    assert "| examples seen | 20 |" in text  # 10 in each of the two steps
    assert "optimizer.lr is 0.01 where T0 has 0.001" in text
    assert "| crows_pairs | test[:200] | 3 | 200 | 80.0 [77.0, 83.0] | 80.0 [78.0, 82.0] | 50.0 | 52.5 |" in text
    assert "crows_pairs: It measures something else." in text
    assert "| crows_pairs | T0 | as published |" in text
    assert "mail test: no folder mail" in text
    assert "![" not in text


def test_results_of_another_checkpoint_are_not_those_of_this_one(run: Path) -> None:
    text = build_card(run, 3, MIXTURE).text
    assert "The checkpoint of step 3 was not evaluated. Other checkpoints of the run were, on bias." in text
    assert "80.0" not in text
