"""The run configurations that ship with t0train: they load, and differ from T0 exactly where they say so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import create_model

from t0train.config import RunConfig, deviations, load_config, load_suite
from t0train.config.schema import BatchConfig, DataConfig, MixtureOverrides, TrainConfig
from t0train.toy.collection import VOCABULARY_SIZE
from tests.config.key_reads import reads, unread_keys

ROOT = Path(__file__).resolve().parents[1]
RUNS = sorted(path.stem for path in (ROOT / "configs" / "runs").glob("*.yaml"))
SUITES = sorted(path.stem for path in (ROOT / "configs" / "evals").glob("*.yaml"))

FROM_RANDOM_WEIGHTS = {
    *("data.max_inputs", "data.max_targets", "data.packing", "model.init_from", "model.size", "model.dropout"),
    *("optimizer.lr", "optimizer.schedule", "optimizer.final_fraction", "train.steps", "train.batch.rows"),
    *("train.loss.denominator", "train.loss.z_loss"),
}
REAL = {"mixture.include", "mixture.rates_from", "mixture.scale", "data.splits"} | FROM_RANDOM_WEIGHTS
TOY = {"mixture.name", "mixture.rate", "data.catalogue", "data.templates", "data.vocabulary"} | FROM_RANDOM_WEIGHTS
TOY |= {"model.vocabulary_size", "train.batch.examples", "train.precision"}
DEVIATIONS: dict[str, set[str]] = {
    "t0": set(),
    "t0p": {"mixture.name"},
    "t0pp": {"mixture.name"},
    "t0_single_prompt": {"mixture.name"},
    "t0_original_task_only": {"mixture.name"},
    "t0_3b": {"model.init_from"},
    "toy": TOY,
    "real_small": REAL,
    "real_short": REAL,
}


def test_every_reference_run_is_there() -> None:
    assert set(RUNS) >= set(DEVIATIONS)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_run_differs_from_t0_exactly_where_it_says(name: str) -> None:
    config = load_config(name)
    assert {deviation.key for deviation in deviations(config)} == DEVIATIONS[name]
    assert config.name == name


@pytest.mark.parametrize("name", RUNS)
def test_a_run_says_how_to_start_it_what_it_needs_and_what_to_expect(name: str) -> None:
    text = (ROOT / "configs" / "runs" / f"{name}.yaml").read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert text.startswith(header)
    assert re.search(rf"t0train train {name}\b", header)
    for word in ("Hardware", "Expected:"):
        assert word in header
    assert re.search(r"[Hh]ours:|Minutes:", header)


@pytest.mark.parametrize("name", RUNS)
def test_the_suite_of_a_run_exists(name: str) -> None:
    suite = load_config(name).suite
    assert not suite or suite in SUITES


@pytest.mark.parametrize("name", SUITES)
def test_suites_load_and_bear_the_name_of_their_file(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.tasks or suite.probes


def test_real_runs_do_not_train_on_the_rows_that_they_are_scored_on() -> None:
    for name in ("real_small", "real_short"):
        config = load_config(name)
        assert config.data.splits["ag_news"] == "test[1000:]"
        assert {task.split for task in load_suite(config.suite).tasks if task.dataset == "ag_news"} == {"test[:1000]"}
        others = {task.split for task in load_suite(config.suite).tasks if task.dataset != "ag_news"}
        assert others == {"test"}  # their training split is the catalogue's: train


def test_real_short_is_real_small_without_imdb() -> None:
    small, short = load_config("real_small").model_dump(), load_config("real_short").model_dump()
    assert set(small["mixture"].pop("include")) - set(short["mixture"].pop("include")) == {"imdb"}
    for config in (small, short):
        del config["name"], config["suite"], config["train"]["steps"], config["train"]["batch"]
    assert small == short


def test_the_toy_model_has_a_row_for_every_piece() -> None:
    assert load_config("toy").model.vocabulary_size == VOCABULARY_SIZE
    assert VOCABULARY_SIZE % 64 == 0


def sources() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (ROOT / "t0train").rglob("*.py")]


def test_every_key_is_read_by_some_part_of_t0train() -> None:
    assert list(unread_keys(RunConfig, reads(sources(), RunConfig, MixtureOverrides))) == []


def test_a_key_that_nothing_reads_is_found_however_common_its_name() -> None:
    """Names that other sections have, or other objects; sections keep their class's name."""
    data = create_model("DataConfig", __base__=DataConfig, name=(str, ""), steps=(int, 1), size=(int, 1))
    batch = create_model("BatchConfig", __base__=BatchConfig, config=(str, ""), source=(str, ""))
    loop = create_model("TrainConfig", __base__=TrainConfig, batch=(batch, batch()))
    whole = create_model("RunConfig", __base__=RunConfig, data=(data, data()), train=(loop, loop()), stage=(int, 1))
    expected = ["data.name", "data.steps", "data.size", "train.batch.config", "train.batch.source", "stage"]
    assert sorted(unread_keys(whole, reads(sources(), whole, MixtureOverrides))) == sorted(expected)


def test_what_counts_as_reading() -> None:
    source = """
class Run:
    config: RunConfig
    def rows(self): return self.config.train.batch.rows
def first(data: DataConfig, other: Other): return data.store, other.workers
def second():
    run = load()
    steps, seed = run.train.steps, run.seed
def load() -> RunConfig | None: ...
def third(changes: list[MixtureOverrides]): return [change.cap for change in changes], changes[0].rate
"""
    assert reads([source], RunConfig, MixtureOverrides) == {
        *(("RunConfig", "train"), ("TrainConfig", "batch"), ("BatchConfig", "rows"), ("DataConfig", "store")),
        *(("TrainConfig", "steps"), ("RunConfig", "seed"), ("MixtureOverrides", "cap"), ("MixtureOverrides", "rate")),
    }
