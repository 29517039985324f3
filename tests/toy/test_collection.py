"""Writing the toy: the same bytes from the same seed, never over somebody else's files."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from t0train.cli.main import main
from t0train.core.errors import UserError
from t0train.tasks import load_catalogue
from t0train.toy import DATASETS, build_toy
from tests.at_once import after_waiting, killed_while_writing
from tests.toy.conftest import Toy


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(toy: Toy, tmp_path: Path) -> None:
    assert build_toy(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(toy.folder)


@pytest.fixture
def copy(toy: Toy, tmp_path: Path) -> Path:
    """A toy folder that a test may spoil."""
    return Path(shutil.copytree(toy.folder, tmp_path / "copy"))


@pytest.mark.slow
def test_another_seed_replaces_the_records_and_keeps_the_templates(toy: Toy, copy: Path) -> None:
    assert build_toy(copy, seed=1)
    old, new = contents(toy.folder), contents(copy)
    assert old.keys() == new.keys()
    changed = {name for name in old if old[name] != new[name]}
    assert {name for name in old if name.startswith("data/")} <= changed
    assert changed.isdisjoint(name for name in old if name.startswith("templates/"))


def test_a_second_call_does_nothing(copy: Path) -> None:
    assert not build_toy(copy)


def test_one_writes_the_toy_at_a_time_and_removes_what_a_killed_one_left(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [left] = killed_while_writing(copy, kind="folder")
    assert not after_waiting(copy.parent / ".copy.lock", lambda: build_toy(copy), capsys)  # it was written before
    assert not left.exists()


@pytest.mark.slow
def test_a_damaged_file_is_written_again(toy: Toy, copy: Path) -> None:
    (copy / "data" / "mail" / "default" / "validation.jsonl").write_text("{}\n")
    assert build_toy(copy)
    assert contents(copy) == contents(toy.folder)


@pytest.mark.parametrize("name", ["notes.txt", "toy.json"])
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="was not written by"):
        build_toy(tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_file_added_to_the_toy_is_not_swept_away(copy: Path) -> None:
    (copy / "data" / "notes.txt").write_text("mine")
    before = contents(copy)
    with pytest.raises(UserError, match=r"data/notes\.txt"):
        build_toy(copy, seed=1)
    assert contents(copy) == before


def test_the_catalogue_is_one_that_t0train_reads(toy: Toy) -> None:
    catalogue = load_catalogue(toy.folder / "catalogue.csv")
    for dataset in DATASETS:
        entry = catalogue[dataset.name]
        assert (entry.stage, entry.held_out) == (("", "BASE") if dataset.held_out else ("BASE", ""))
        assert entry.train_size == (None if dataset.held_out else 1500)
        assert entry.eval_split == "validation"


@pytest.mark.slow
def test_the_command_writes_the_toy_and_refuses_a_foreign_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["t0train", "toy", str(tmp_path / "toy"), "--seed", "2"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert "10 datasets to train on, 4 held out" in capsys.readouterr().out
    assert json.loads((tmp_path / "toy" / "toy.json").read_text())["seed"] == 2
    (tmp_path / "toy" / "mine").write_text("mine")
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "mine" in capsys.readouterr().err
