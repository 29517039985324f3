"""Deviations from the T0 recipe: the keys that matter to what is learned, and no others."""

from __future__ import annotations

import json

import pytest

from t0train.config import RunConfig, deviations, load_config


def keys(**values: object) -> list[str]:
    return [found.key for found in deviations(RunConfig.model_validate(values))]


def test_the_reference_deviates_in_nothing() -> None:
    assert deviations(RunConfig()) == []


@pytest.mark.parametrize("name", ["t0", "t0p", "t0pp", "t0_3b", "t0_single_prompt", "t0_original_task_only"])
def test_published_variants_deviate_only_in_start_and_mixture(name: str) -> None:
    found = {deviation.key for deviation in deviations(load_config(name))}
    assert found == {"t0": set(), "t0_3b": {"model.init_from"}}.get(name, {"mixture.name"})


def test_recipe_keys_are_told_with_both_values() -> None:
    (found,) = deviations(RunConfig.model_validate({"optimizer": {"lr": 0.01}}))
    assert (found.key, found.value, found.reference) == ("optimizer.lr", 0.01, 0.001)
    assert "0.01" in found.sentence
    assert "0.001" in found.sentence
    assert json.loads(json.dumps(found.as_dict()))["key"] == "optimizer.lr"


def test_where_and_how_a_run_executes_is_no_deviation() -> None:
    bookkeeping = {
        "name": "mine",
        "output": "elsewhere",
        "seed": 5,
        "suite": "toy_heldout",
        "data": {"source": "folder", "store": "folder", "workers": 0},
        "model": {"attention": "eager"},
        "train": {
            "device": "cpu",
            "canary": False,
            "batch": {"micro_batch_rows": 1},
            "loss": {"chunk": 8},
            "checkpoint": {"every": 1, "keep": 9},
        },
    }
    assert keys(**bookkeeping) == []


def test_what_is_learned_is_a_deviation() -> None:
    assert keys(data={"max_inputs": 512, "packing": "best_fit"}) == ["data.max_inputs", "data.packing"]
    assert keys(train={"batch": {"examples": 64}}) == ["train.batch.rows", "train.batch.examples"]
    assert keys(train={"precision": "fp32"}, mixture={"rate": "equal"}) == ["mixture.rate", "train.precision"]
