"""`t0train config`: what goes to stdout, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from t0train.cli.config import FOLDERS, app, config_model
from t0train.config import config_hash, dump_config, load_config
from t0train.config.load import load_yaml
from t0train.core.errors import UserError
from tests.conftest import ROOT


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_show_prints_yaml_that_loads_to_the_same_configuration(tmp_path: Path) -> None:
    printed = run("show", "toy", "train.steps=7")
    (tmp_path / "again.yaml").write_text(printed)
    expected = load_config("toy", ["train.steps=7"])
    assert load_config(tmp_path / "again.yaml") == expected
    assert f"# content hash: {config_hash(expected)}" in printed
    assert "#   train.steps is 7 where T0 has 12200" in printed


def test_show_as_json() -> None:
    document = json.loads(run("show", "t0_3b", "--json"))
    assert document["config"]["train"]["steps"] == 12_200
    assert document["hash"] == config_hash(load_config("t0_3b"))
    assert [found["key"] for found in document["deviations"]] == ["model.init_from"]


def test_show_of_the_recipe_itself() -> None:
    printed = run("show", "t0")
    assert "equals the T0 recipe" in printed
    assert yaml.safe_load(printed)["name"] == "t0"


def test_diff_lists_keys_that_differ_and_no_others(tmp_path: Path) -> None:
    for name, text in (("a", "seed: 1\ntrain: {steps: 5}"), ("b", "seed: 2\ntrain: {steps: 5}\nsuite: demo")):
        (tmp_path / f"{name}.yaml").write_text(text)
    paths = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert json.loads(run("diff", *paths, "--json")) == [
        {"key": "seed", "first": 1, "second": 2},
        {"key": "suite", "first": "", "second": "demo"},
    ]
    assert "suite" in run("diff", *paths)
    assert json.loads(run("diff", "toy", "toy", "--json")) == []
    assert "same configuration" in run("diff", "toy", "toy")


def test_a_run_folder_stands_for_its_resolved_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.resolved.yaml").write_text(dump_config(load_config("toy", ["seed=9"])))
    differing = json.loads(run("diff", "toy", str(tmp_path), "--json"))
    assert differing == [
        {"key": "output", "first": str(Path.cwd() / "runs/toy/run"), "second": ""},  # not seed 0's folder
        {"key": "seed", "first": 0, "second": 9},
    ]


def test_validate_says_yes() -> None:
    assert "toy is valid" in run("validate", "toy")


def test_bad_configurations_end_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("train: {stpes: 5}")
    program = "import sys; from t0train.cli.config import app; from t0train.cli.main import app as whole, main; "
    program += (
        "[whole.add_typer(app, name='config')] if 'config' not in {g.name for g in whole.registered_groups} else 0; "
    )
    command = [sys.executable, "-c", program + "main()", "config", "validate", str(tmp_path / "bad.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "did you mean 'steps'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_are_found_by_name_and_by_meaning() -> None:
    keys = {key["name"]: key for key in json.loads(run("keys", "--json"))}
    assert keys["train.steps"]["default"] == 12_200
    assert keys["data.max_targets"]["default"] == 256
    by_name = {key["name"] for key in json.loads(run("keys", "BETAS", "--json"))}
    assert by_name == {"optimizer.betas"}
    by_meaning = {key["name"] for key in json.loads(run("keys", "sigterm", "--json"))}
    assert by_meaning == {"train.checkpoint.minutes"}
    printed = run("keys", "warm-up")
    assert "optimizer.warmup" in printed
    assert "constant_0_001.gin" in printed
    assert "tasks[].split" in run("keys", "--of", "suite")


def test_a_filter_that_finds_nothing_is_refused_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["keys", "warmpu"])
    assert isinstance(done.exception, UserError)
    assert "did you mean 'warmup'?" in str(done.exception)


@pytest.mark.parametrize("kind", FOLDERS)
def test_schema_is_the_file_that_shipped_configurations_name(kind: str) -> None:
    assert run("schema", kind) == (ROOT / "configs" / "schema" / f"{kind}.json").read_text(encoding="utf-8")


COPIES = [(kind, path.stem) for kind in FOLDERS for path in sorted((ROOT / "configs" / FOLDERS[kind]).glob("*.yaml"))]


@pytest.mark.parametrize(("kind", "name"), COPIES)
def test_a_copy_means_the_same_as_the_original(kind: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "mine.yaml"
    printed = run("copy", name, str(file), "--of", kind)
    assert str(file.parent) in printed
    model = config_model(kind)
    original = ROOT / "configs" / FOLDERS[kind] / f"{name}.yaml"
    assert load_yaml(model, FOLDERS[kind], file) == load_yaml(model, FOLDERS[kind], original)
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    assert first == f"# yaml-language-server: $schema={ROOT / 'configs' / 'schema' / kind}.json"
    assert rest == original.read_text(encoding="utf-8").splitlines()[1:]
    assert ("change `name`" in printed) == (kind == "run")


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    file, link = tmp_path / "mine.yaml", tmp_path / "link.yaml"
    file.write_text("seed: 1")
    link.symlink_to(tmp_path / "nowhere.yaml")
    for path in (file, link):
        done = CliRunner().invoke(app, ["copy", "toy", str(path)])
        assert isinstance(done.exception, UserError)
        assert "nothing is written over it" in str(done.exception)
    assert file.read_text() == "seed: 1"
    assert not (tmp_path / "nowhere.yaml").exists()


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [("tyo", "a.yaml", "did you mean 'toy'"), ("toy", "a", "does not end in .yaml"), ("toy", "a.yaml/b.yaml", "file")],
)
def test_copies_that_cannot_be_made_say_why(name: str, file: str, reason: str, tmp_path: Path) -> None:
    if "/" in file:
        (tmp_path / "a.yaml").write_text("")
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["copy", name, str(tmp_path / file)])
    assert isinstance(done.exception, UserError)
    assert reason in str(done.exception)
    assert sorted(tmp_path.rglob("*")) == before
