"""What is generated from the schema: the list of keys, the JSON schemas, the page of the documentation."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field

from t0train.cli.config import FOLDERS, config_model
from t0train.config import load_config
from t0train.config.load import load_yaml
from t0train.config.reference import config_keys, json_schema
from t0train.config.schema import RunConfig, Section, execution_field, recipe_field
from t0train.config.values import dotted_keys
from t0train.core.errors import UserError
from tests.conftest import ROOT

SHIPPED = [
    (kind, path) for kind, folder in FOLDERS.items() for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))
]


def generated() -> dict[Path, str]:
    specification = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "config_reference.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    files: dict[Path, str] = module.generated()
    return files


def test_generated_files_are_current() -> None:
    files = generated()
    assert len(files) == 1 + len(FOLDERS)
    stale = [path.name for path, content in files.items() if path.read_text(encoding="utf-8") != content]
    assert stale == [], "run `python scripts/config_reference.py`"


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_key_has_a_meaning(kind: str) -> None:
    assert [key.name for key in config_keys(config_model(kind)) if not key.meaning] == []


def test_every_key_of_a_run_is_listed_once() -> None:
    assert [key.name for key in config_keys(RunConfig)] == list(dotted_keys(RunConfig))


def test_every_key_that_matters_to_what_is_learned_has_a_source() -> None:
    """Held against the deviations: they are what the other keys are left out of."""
    from t0train.config.deviations import flatten

    recipe = {key for key, _, _, is_recipe in flatten(RunConfig()) if is_recipe}
    assert {key.name for key in config_keys(RunConfig) if key.source} == recipe


class Item(Section):
    word: str = Field(description="a word")


class Inner(Section):
    share: float = recipe_field(0.5, "a share", "a paper", gt=0, le=1)
    kind: int | list[str] | None = execution_field(None, "one of several")
    items: list[Item] = execution_field([], "several")


class Outer(Section):
    inner: Inner = Field(default_factory=Inner)
    on: bool = execution_field(True, "a switch")


def test_keys_of_a_schema_of_ones_own() -> None:
    found = [(key.name, key.default, key.required, key.takes, key.source) for key in config_keys(Outer)]
    assert found == [
        ("inner.share", 0.5, False, "number above 0 to 1", "a paper"),
        ("inner.kind", None, False, "integer, list of text, nothing", ""),
        ("inner.items", [], False, "list of sections", ""),
        ("inner.items[].word", None, True, "text", ""),
        ("on", True, False, "true, false", ""),
    ]


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_shipped_files_name_their_schema_and_are_valid_by_it(kind: str, path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named
    assert (path.parent / named[1]).resolve() == ROOT / "configs" / "schema" / f"{kind}.json"
    schema = json.loads((path.parent / named[1]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def refuses() -> Callable[[str, str], bool]:
    """Whether an editor would underline something in a file."""
    validators = {
        kind: jsonschema.Draft202012Validator(json_schema(config_model(kind), f"t0train {kind}")) for kind in FOLDERS
    }
    return lambda text, kind: not validators[kind].is_valid(yaml.safe_load(text))


ACCEPTED = [
    "name: 2024",
    "name: a\nseed: ${train.steps}",
    "mixture: {cap: '${train.steps}', include: , scale: {trec: 2}}",
    "defaults: real_small\nmixture: {scale: {'trec_fine_grained_[A-Z]*': }}",
    "defaults: [real_small, t0_3b]\nmodel: {size: }\nsuite:",
    "optimizer: {betas: [0.9, 0.95], lr: 1.0e-3}",
    "data: {splits: {ag_news: 'test[1000:]'}, templates: [a, b]}",
    "train: {deepspeed: {config: {zero_optimization: {overlap_comm: true}}}}",
    "mixture: {prompts: 3}",
]
REFUSED = [
    "train: {stpes: 5}",
    "train: {steps: 0}",
    "train: {steps: many}",
    "train: {strategy: fspd}",
    "mixture: {prompts: som}",
    "model: {dropout: 1}",
    "optimizer: {betas: 0.9}",
    "mixture:",
    "defaults: 3",
    "leaks: {threshold: 0}",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_t0train_takes_the_schema_takes(text: str, refuses: Callable[[str, str], bool], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    load_config(tmp_path / "run.yaml")
    assert not refuses(text, "run")


@pytest.mark.parametrize("text", REFUSED)
def test_slips_are_refused_by_both(text: str, refuses: Callable[[str, str], bool], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError):
        load_config(tmp_path / "run.yaml")
    assert refuses(text, "run")


def test_a_required_key_may_come_from_an_included_file(refuses: Callable[[str, str], bool], tmp_path: Path) -> None:
    text = "defaults: toy_heldout\nallow_empty_targets: true"
    (tmp_path / "suite.yaml").write_text(text)
    assert load_yaml(config_model("suite"), "evals", tmp_path / "suite.yaml")
    assert not refuses(text, "suite")
    assert refuses("allow_empty_targets: true", "suite")


def test_descriptions_say_where_a_value_of_t0_is_written_down() -> None:
    schema: dict[str, Any] = json_schema(RunConfig, "t0train run")
    steps = schema["$defs"]["TrainConfig"]["properties"]["steps"]
    assert "T0's model card" in steps["description"]
    assert steps["default"] == 12_200
    assert "source" not in steps
    assert "recipe" not in schema["properties"]["seed"]
    assert issubclass(config_model("mixture"), BaseModel)
