"""Names of a run folder's files, and which checkpoint is meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from t0train.core.errors import UserError
from t0train.core.run_folder import RunFolder, list_checkpoints, step_of
from tests.conftest import ROOT

NAMES = ("config.resolved.yaml", "deviations.json", "events.jsonl", '"checkpoints"', "selected.json", '"step-')


def checkpoint(run: RunFolder, step: int, complete: bool = True) -> Path:
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    if complete:
        (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_the_newest_complete_checkpoint_is_meant_unless_one_is_selected(run: RunFolder) -> None:
    first, second = checkpoint(run, 10), checkpoint(run, 20)
    checkpoint(run, 30, complete=False)
    assert run.find_checkpoint() == second
    run.select(10, "some_suite")
    assert run.find_checkpoint() == first
    assert run.find_checkpoint(20) == second
    checkpoint(run, 40)
    assert run.find_checkpoint() == run.checkpoint(40), "the run went on after the selection"


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(run: RunFolder) -> None:
    with pytest.raises(UserError, match="has no complete checkpoint yet"):
        run.find_checkpoint()
    checkpoint(run, 10)
    checkpoint(run, 30, complete=False)
    with pytest.raises(UserError, match="no complete checkpoint of step 30; it has 10"):
        run.find_checkpoint(30)


def test_steps_are_ordered_as_numbers(run: RunFolder) -> None:
    """A step of more than eight digits sorts before shorter ones as text."""
    steps = [99_999_999, 100_000_000, 5]
    for step in steps:
        checkpoint(run, step)
    (run.checkpoints / "step-5").mkdir()
    (run.checkpoints / "aside-step-00000007").mkdir()
    assert [step_of(path) for path in list_checkpoints(run.checkpoints)] == sorted(steps, reverse=True)


def test_a_run_is_found_from_its_folder_and_from_a_checkpoint(run: RunFolder) -> None:
    folder = checkpoint(run, 10)
    assert RunFolder.of(run.path) is None
    run.config.write_text("name: x\n")
    assert RunFolder.of(run.path) == RunFolder.of(folder) == run


def test_results_of_the_untrained_model_and_of_older_checkpoints_have_folders_of_their_own(run: RunFolder) -> None:
    assert run.results("toy") == run.path / "eval" / "toy"
    assert run.results("toy", untrained=True) == run.path / "eval" / "toy-untrained"
    assert run.results("toy", step=7) == run.path / "eval" / "toy" / "step-00000007"


def test_no_other_module_knows_the_names() -> None:
    """Docstrings, help and messages may name them."""
    strays = []
    for path in sorted((ROOT / "t0train").rglob("*.py")):
        if path.name == "run_folder.py":
            continue
        code = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        strays += [f"{path.name}: {name}" for name in NAMES if re.search(rf'/ f?"?{re.escape(name)}', code)]
    assert strays == []
