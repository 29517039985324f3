"""The `t0train` command itself: how little it imports for its help, and shell completion."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; sys.argv[0] = 't0train'; from t0train.cli.main import main; main()"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-c", PROGRAM, *arguments]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that an interpreter has imported."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("arguments", [["--help"], ["config", "--help"], ["eval", "--help"], ["mixture", "--help"]])
def test_help_imports_nothing_that_is_slow(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Usage: t0train" in done.stdout
    assert {"typer", "t0train"} <= imported(done)
    slow = {"yaml", "numpy", "torch", "pyarrow", "jinja2", "transformers"}
    slow |= {"pydantic"} if arguments == ["--help"] else set()  # typer itself reads a group's arguments with pydantic
    assert imported(done) & slow == set()


def complete(words: str) -> tuple[set[str], set[str]]:
    """What bash would offer behind the words, and what was imported for it."""
    done = run(_T0TRAIN_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()), imported(done)


def test_commands_are_completed_without_torch() -> None:
    offered, packages = complete("t0train ")
    assert {"config", "train", "eval", "report"} <= offered
    assert "torch" not in packages
    assert complete("t0train config sh")[0] == {"show"}


@pytest.mark.parametrize(
    "command", ["config show", "train", "estimate", "data prepare", "data verify", "mixture check"]
)
def test_names_of_configurations_and_keys_are_completed(command: str) -> None:
    assert complete(f"t0train {command} real_")[0] == {"real_small", "real_short"}
    offered, packages = complete(f"t0train {command} toy train.ba")
    assert offered == {"train.batch.rows=", "train.batch.examples=", "train.batch.micro_batch_rows="}
    assert "torch" not in packages


def test_completion_is_shown_for_a_shell() -> None:
    done = run("--show-completion", "bash")
    assert done.returncode == 0, done.stderr
    assert "_T0TRAIN_COMPLETE=complete_bash" in done.stdout
