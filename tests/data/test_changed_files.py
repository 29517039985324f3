"""Files that change between two preparations of one process, or during one: no rows under the key of others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.data import load_vocabulary, open_folder, prepare
from t0train.data import prepare as prepare_function
from t0train.data.shards import Shard
from tests.data.conftest import Configure, train_vocabulary, write_templates

prepare_module = __import__("importlib").import_module(prepare_function.__module__)


@dataclass
class World:
    """A dataset of four rows under one template, all in files of its own."""

    folder: Path
    run: RunConfig

    @property
    def rows(self) -> Path:
        return self.folder / "data" / "colours" / "default" / "train.jsonl"

    @property
    def templates(self) -> Path:
        return self.folder / "templates" / "colours" / "templates.yaml"

    @property
    def vocabulary(self) -> Path:
        return self.folder / "spiece.model"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def write_rows(self, thing: str) -> None:
        rows = [{"thing": thing, "label": 0, "text": "x"}] * 4
        self.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def texts(self, workers: int = 1) -> list[tuple[str, str]]:
        """Input and target of every example, prepared now."""
        [prepared] = prepare(self.run, workers)
        vocabulary, tokens = load_vocabulary(self.vocabulary), open_folder(prepared.folder)
        return [(vocabulary.decode(tokens.inputs(i)), vocabulary.decode(tokens.targets(i))) for i in range(len(tokens))]

    def is_empty(self) -> bool:
        """Whether the store holds no task and no shard."""
        return [path.name for path in self.store.iterdir()] == [".lock"]


@pytest.fixture
def world(tmp_path: Path, configure: Configure, vocabulary_file: Path) -> World:
    folder = tmp_path / "world"
    (folder / "data" / "colours" / "default").mkdir(parents=True)
    (folder / "catalogue.csv").write_text("name,stage,train_size\ncolours,BASE,4\n")
    shutil.copy(vocabulary_file, folder / "spiece.model")
    write_templates(folder / "templates", "colours", [("ask", "What is it about? ||| {{ thing }}", None)])
    run = configure(
        source=str(folder / "data"),
        store=str(folder / "store"),
        vocabulary=str(folder / "spiece.model"),
        catalogue=str(folder / "catalogue.csv"),
        templates=[str(folder / "templates")],
    )
    made = World(folder, run)
    made.write_rows("leaf")
    return made


def keeping_its_time(path: Path, change: Callable[[], object]) -> None:
    """Make a change that size and time of the file do not show."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_rows_that_changed_between_two_preparations(world: World) -> None:
    assert world.texts() == [("What is it about?", "leaf")] * 4
    keeping_its_time(world.rows, lambda: world.write_rows("rose"))
    assert world.texts() == [("What is it about?", "rose")] * 4
    keeping_its_time(world.rows, lambda: world.write_rows("leaf"))
    assert world.texts() == [("What is it about?", "leaf")] * 4


def test_a_template_that_changed_between_two_preparations(world: World) -> None:
    assert world.texts() == [("What is it about?", "leaf")] * 4
    text = world.templates.read_text()
    keeping_its_time(world.templates, lambda: world.templates.write_text(text.replace("about", "Which")))
    assert world.texts() == [("What is it Which?", "leaf")] * 4


def test_a_vocabulary_that_changed_between_two_preparations(world: World) -> None:
    [first] = prepare(world.run, 1)
    train_vocabulary(world.vocabulary, extra=" zzz qqq leaf leaf")
    [second] = prepare(world.run, 1)
    assert second.folder != first.folder
    vocabulary = load_vocabulary(world.vocabulary)
    assert open_folder(second.folder).targets(0).tolist() == [*vocabulary.encode("leaf"), 1]
    assert open_folder(second.folder).inputs(0).tolist() == vocabulary.encode("What is it about?").tolist()


def changes(world: World) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "train", lambda: keeping_its_time(world.rows, lambda: world.write_rows("rose"))
    yield "spiece.model", lambda: train_vocabulary(world.vocabulary, extra=" zzz")


@pytest.mark.parametrize("which", [0, 1], ids=["rows", "vocabulary"])
@pytest.mark.parametrize("moment", ["before reading", "before assembly"])
def test_a_change_during_preparation_is_refused_and_nothing_stored(
    world: World, monkeypatch: pytest.MonkeyPatch, which: int, moment: str
) -> None:
    name, change = list(changes(world))[which]
    real = prepare_module.make_shard

    def make_shard(shard: Shard) -> Shard:
        if moment == "before reading":
            change()
        made: Shard = real(shard)
        if moment == "before assembly":
            change()
        return made

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "make_shard", make_shard)
        with pytest.raises(UserError, match=rf"{name}.* changed .*run the same command again"):
            prepare(world.run, 1)
    assert world.is_empty()
    assert {target for _, target in world.texts()} == ({"rose"} if which == 0 else {"leaf"})


@pytest.mark.slow
def test_worker_processes_refuse_a_change_too(
    world: World, monkeypatch: pytest.MonkeyPatch, source: Path, configure: Configure
) -> None:
    """With two datasets there are several shards, so that processes are started."""
    shutil.copytree(source / "data" / "stories", world.folder / "data" / "stories")
    shutil.copytree(source / "templates" / "stories", world.folder / "templates" / "stories")
    (world.folder / "catalogue.csv").write_text("name,stage,train_size\ncolours,BASE,4\nstories,BASE,300\n")
    real = prepare_module._run

    def run_after_a_change(shards: list[Shard], workers: int) -> Iterator[Shard]:
        assert len(shards) > 1
        world.write_rows("rose")
        yield from real(shards, workers)

    monkeypatch.setattr(prepare_module, "_run", run_after_a_change)
    with pytest.raises(UserError, match="split train changed since the preparation began"):
        prepare(world.run, 2)
    assert not (world.store / "colours_ask").exists()
    monkeypatch.undo()
    assert {task.task: task.rows for task in prepare(world.run, 2)}["colours_ask"] == 4
