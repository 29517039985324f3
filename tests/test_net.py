"""Every tracked file is linted, and every tracked test file is collected, whatever its folder is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, tracked_test_files


def run(*command: str, cwd: Path = ROOT) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "T0TRAIN_NO_SKIPS"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with this one's pytest settings and a test of each kind."""
    folder = tmp_path / "checkout"
    (folder / "tests").mkdir(parents=True)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (folder / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "tests" / "test_kinds.py").write_text(
        "import pytest\n\ndef test_plain():\n    pass\n\n@pytest.mark.slow\ndef test_slow():\n    pass\n"
    )
    run("git", "init", "-q", cwd=folder)
    run("git", "add", ".", cwd=folder)
    return folder


def in_ci(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "T0TRAIN_NO_SKIPS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_counts_are_printed_by_marker(checkout: Path, options: tuple[str, ...]) -> None:
    done = in_ci(checkout, *options)
    assert done.returncode == 0, done.stdout
    assert "tests that ran, by marker: 1 unmarked, 0 distributed, 1 slow, 0 gpu; 2 in all" in done.stdout


def test_a_skipped_test_fails_the_run_unless_it_needs_a_gpu(checkout: Path) -> None:
    skipped = "\n@pytest.mark.gpu\n@pytest.mark.skipif(True, reason='no GPU')\ndef test_on_gpu():\n    pass\n"
    with (checkout / "tests" / "test_kinds.py").open("a") as stream:
        stream.write(skipped)
    assert in_ci(checkout).returncode == 0
    with (checkout / "tests" / "test_kinds.py").open("a") as stream:
        stream.write("\ndef test_without_rows():\n    pytest.skip('no rows')\n")
    done = in_ci(checkout)
    assert done.returncode == 1
    assert "skipped, though T0TRAIN_NO_SKIPS=1: tests/test_kinds.py::test_without_rows" in done.stdout


def test_a_tracked_test_file_that_did_not_run_fails_the_run(checkout: Path) -> None:
    hidden = checkout / "tests" / "build" / "test_hidden.py"
    hidden.parent.mkdir()
    hidden.write_text("def test_it():\n    pass\n")
    assert in_ci(checkout).returncode == 0  # nobody tracks it
    run("git", "add", ".", cwd=checkout)
    done = in_ci(checkout)
    assert done.returncode == 1
    assert "no test of a tracked file ran: tests/build/test_hidden.py" in done.stdout
