"""Where tests find real rows, the real T5 vocabulary and promptsource's templates."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With T0TRAIN_NO_SKIPS=1 (continuous integration) a skipped test fails the run, unless it needs a GPU."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("T0TRAIN_NO_SKIPS") or reporter is None:
        return
    skipped = [report for report in reporter.stats.get("skipped", []) if "gpu" not in report.keywords]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} tests were skipped that T0TRAIN_NO_SKIPS=1 demands", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
