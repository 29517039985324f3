"""Every tracked file is linted, and every tracked test file is collected, whatever its folder is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, tracked_test_files


def run(*command: str, cwd: Path = ROOT) -> list[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_tracked_python_file_is_linted() -> None:
    linted = {str(Path(line).relative_to(ROOT)) for line in run("ruff", "check", ".", "--show-files")}
    assert set(run("git", "ls-files", "*.py")) - linted == set()


@pytest.mark.slow
def test_every_tracked_test_file_is_collected() -> None:
    listed = run(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert tracked_test_files() - {line.partition("::")[0] for line in listed} == set()


@pytest.mark.parametrize("name", ["dist", "node_modules"])
def test_names_that_pytest_and_ruff_ignore_by_default_hide_nothing(name: str, tmp_path: Path) -> None:
    """A folder called `dist` once hid 190 tests."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    folder = tmp_path / "tests" / name
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text("def test_it() -> None:\n    pass\n")
    collected = run(sys.executable, "-m", "pytest", "--collect-only", "-q", "tests", cwd=tmp_path)
    assert f"tests/{name}/test_it.py::test_it" in collected
    assert str(folder / "test_it.py") in run("ruff", "check", ".", "--show-files", cwd=tmp_path)
