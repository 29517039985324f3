"""Where tests find real rows, the real T5 vocabulary and promptsource's templates."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from _pytest.terminal import TerminalReporter

ROOT = Path(__file__).resolve().parents[1]


def data_folder() -> Path:
    """`$T0TRAIN_TEST_DATA`, else `../shared/data` beside the checkout."""
    return Path(os.environ.get("T0TRAIN_TEST_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    """What draws without a generator of its own draws the same in every run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries draw from it)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"real rows: no folder {folder}; set T0TRAIN_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def t5_vocabulary(real_data: Path) -> Path:
    path = real_data / "t5-tokenizer" / "spiece.model"
    if not path.is_file():
        pytest.skip(f"real vocabulary: no file {path}")
    return path


@pytest.fixture(scope="session")
def promptsource_folder() -> Path:
    from t0train.prompts import template_folder

    folder = template_folder()
    if folder is None:
        pytest.skip("promptsource's templates: run `t0train prompts install`")
    return folder


# Started with nohup or in the background, the tests would inherit ignored signals, which runs leave ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MARKERS = ("distributed", "slow", "gpu")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say how many tests ran, by marker."""
    ran = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    counts = Counter(_marker(report) for report in ran)
    parts = [f"{counts[marker]} {marker or 'unmarked'}" for marker in ("", *MARKERS)]
    terminalreporter.write_line(f"tests that ran, by marker: {', '.join(parts)}; {len(ran)} in all")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With T0TRAIN_NO_SKIPS=1 (continuous integration) the run fails if a test was skipped or a test file did not run.

    Only tests that need a GPU may be skipped. A file is known by being tracked: pytest itself passes over folders
    whose names it ignores without a word.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("T0TRAIN_NO_SKIPS") or reporter is None:
        return
    skipped = [report for report in reporter.stats.get("skipped", []) if "gpu" not in report.keywords]
    reports = [report for reports in reporter.stats.values() for report in reports if hasattr(report, "nodeid")]
    absent = sorted(tracked_test_files() - {report.nodeid.partition("::")[0] for report in reports})
    faults = [f"skipped, though T0TRAIN_NO_SKIPS=1: {report.nodeid}" for report in skipped]
    faults += [f"no test of a tracked file ran: {name}" for name in absent]
    for fault in faults:
        reporter.write_line(fault, red=True)
    if faults and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def tracked_test_files() -> set[str]:
    """The test files that git knows, relative to the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "tests/test_*.py", "tests/**/test_*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.splitlines())


def _marker(report: pytest.TestReport) -> str:
    return next((marker for marker in MARKERS if marker in report.keywords), "")
