"""`t0train config`: what goes to stdout, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from typer.testing import CliRunner

from t0train.cli.config import app
from t0train.config import config_hash, dump_config, load_config


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
