"""A task's folder holds that task: what was renamed, exchanged or edited is told, by every command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t0train.core.errors import UserError
from t0train.core.hashing import file_sha256
from t0train.data import Prepared, open_folder, open_loader, prepare, verify_store
from tests.data.conftest import Configure


def edit(folder: Path, **values: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def another_tasks_folder(mine: Path, other: Path) -> None:
    shutil.rmtree(mine)
    shutil.copytree(other, mine)


def its_manifest_edited_too(mine: Path, other: Path) -> None:
    manifest = json.loads((mine / "manifest.json").read_text())
    another_tasks_folder(mine, other)
    edit(mine, **{key: manifest[key] for key in ("task", "split", "key_parts")})


def another_tasks_tokens(mine: Path, other: Path) -> None:
    shutil.copy(other / "tokens.arrow", mine / "tokens.arrow")
    edit(
        mine,
        **{key: json.loads((other / "manifest.json").read_text())[key] for key in ("rows", "counts")},
        bytes=(mine / "tokens.arrow").stat().st_size,
        sha256=file_sha256(mine / "tokens.arrow"),
    )


def another_task_in_the_manifest(mine: Path, other: Path) -> None:
    edit(mine, task=other.parent.name)


def another_key_in_the_manifest(mine: Path, other: Path) -> None:
    parts = json.loads((mine / "manifest.json").read_text())["key_parts"]
    edit(mine, key_parts={**parts, "template": "0" * 16})


def another_split_in_the_manifest(mine: Path, other: Path) -> None:
    edit(mine, split="validation")


CHANGES: list[tuple[Callable[[Path, Path], None], str]] = [
    (another_tasks_folder, "its manifest is of stories_tell/train-"),
    (its_manifest_edited_too, r"tokens\.arrow is of stories_tell/train-"),
    (another_tasks_tokens, r"tokens\.arrow is of stories_tell/train-"),
    (another_task_in_the_manifest, "its manifest is of stories_tell/train-"),
    (another_key_in_the_manifest, "its manifest is of stories_pick/train-"),
    (another_split_in_the_manifest, "its manifest is of stories_pick/validation-"),
]


@pytest.fixture
def two_tasks(configure: Configure) -> tuple[Prepared, Prepared]:
    prepared = {task.task: task for task in prepare(configure(), 1)}
    return prepared["stories_pick"], prepared["stories_tell"]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_what_is_not_in_its_place_is_told(
    configure: Configure, two_tasks: tuple[Prepared, Prepared], change: Callable[[Path, Path], None], message: str
) -> None:
    mine, other = two_tasks
    whole = (mine.folder / "tokens.arrow").read_bytes()
    change(mine.folder, other.folder)
    for verify in (True, False):
        with pytest.raises(UserError, match=message):
            open_folder(mine.folder, verify)
        with pytest.raises(UserError, match=rf"1 of 5 tasks(?s:.)*{message}"):
            open_loader(configure(), verify)
    results = verify_store(Path(configure().data.store))
    assert [message for result in results if isinstance(result, UserError)] == [message]
    assert [task.task for task in prepare(configure(), 1) if task.made] == ["stories_pick"]
    assert (mine.folder / "tokens.arrow").read_bytes() == whole


def test_folders_of_two_tasks_that_were_exchanged_are_both_told(
    configure: Configure, two_tasks: tuple[Prepared, Prepared]
) -> None:
    mine, other = two_tasks
    aside = mine.folder.parent / "aside"
    mine.folder.rename(aside)
    other.folder.rename(mine.folder)
    aside.rename(other.folder)
    with pytest.raises(UserError, match="2 of 5 tasks"):
        open_loader(configure())


def test_a_store_of_another_version_is_no_damage(configure: Configure, two_tasks: tuple[Prepared, Prepared]) -> None:
    folder = two_tasks[0].folder
    edit(folder, key_parts={**json.loads((folder / "manifest.json").read_text())["key_parts"], "store": 1})
    with pytest.raises(UserError, match="prepared by another version of t0train"):
        open_folder(folder)
