"""Checkpoints: what is written comes back, damage is noticed, nothing is left half-done."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import t0train.checkpoint.writer as module
from t0train.checkpoint import Manifest, read_manifest, read_state
from t0train.checkpoint.writer import CheckpointWriter, set_aside
from t0train.config.schema import OptimizerConfig
from t0train.core.errors import UserError
from t0train.core.files import remove_leftovers, work_folder
from t0train.core.run_folder import list_checkpoints
from t0train.distributed import World
from t0train.model import T5, init_model, load_model
from t0train.optim import build_optimizer, optimizer_state


def trained(optimizer_name: str = "adafactor") -> tuple[T5, torch.optim.Optimizer]:
    """A very small model after two optimizer steps on made-up gradients."""
    model = init_model("tiny", vocab_size=160, d_model=128, d_ff=16, d_kv=8)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(name=optimizer_name))
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return model, optimizer


def state_of(model: T5, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"model": dict(model.named_parameters()), "optimizer": optimizer_state(optimizer)}


def write(folder: Path, model: T5, optimizer: torch.optim.Optimizer, step: int, keep: int) -> Path:
    writer = CheckpointWriter(folder, keep, world=World())
    writer.start(state_of(model, optimizer), model.config, manifest(step))
    path = writer.finish()
    assert path is not None
    return path


def manifest(step: int) -> Manifest:
    return Manifest(step=step, rows=(2, 17), identity={"seed": 3, "optimizer.betas": [0.9, 0.999]}, config="abc")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoints"), *trained(), 5, keep=2)


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    return Path(shutil.copytree(written, tmp_path / "checkpoints" / written.name))


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_what_is_written_comes_back(name: str, tmp_path: Path) -> None:
    model, optimizer = trained(name)
    path = write(tmp_path, model, optimizer, 12, keep=1)
    assert path.name == "step-00000012"
    assert (tmp_path / "latest").read_text() == "step-00000012\n"
    assert read_manifest(path) == manifest(12)

    again = load_model(path)
    assert again.config == model.config
    fresh = build_optimizer(again.named_parameters(), OptimizerConfig(name=name))
    read_state(path, state_of(again, fresh))
    parameters = dict(model.named_parameters())
    for parameter_name, parameter in again.named_parameters():
        assert torch.equal(parameter, parameters[parameter_name])
        before, after = optimizer.state[parameters[parameter_name]], fresh.state[parameter]
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    model, optimizer = trained()
    for step in (1, 2, 10):
        write(tmp_path, model, optimizer, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000002", "step-00000010"]


@pytest.mark.parametrize(
    ("keep", "keep_every", "written", "left"),
    [
        (2, None, [2, 4, 6], [4, 6]),
        (1, 4, [2, 4, 6, 8, 10], [4, 8, 10]),
        (2, 4, [2, 4, 6, 8, 10], [4, 8, 10]),
        (2, 4, [2, 4, 6], [4, 6]),
        (1, None, [2, -3], [2, 3]),  # negative: temporary
        (1, None, [2, -3, -4], [2, 4]),
        (1, None, [2, -3, 4], [4]),
        (2, None, [2, -3, 4, -5, -6], [2, 4, 6]),
        (1, 3, [2, -3, 4], [4]),  # temporary is temporary, whatever its step
        (1, None, [-1, -2], [2]),
    ],
)
def test_which_checkpoints_stay(
    keep: int, keep_every: int | None, written: list[int], left: list[int], tmp_path: Path
) -> None:
    model, _ = trained()
    writer = CheckpointWriter(tmp_path, keep, keep_every=keep_every, world=World())
    for step in written:
        about = replace(manifest(abs(step)), temporary=step < 0)
        writer.start({"model": {"shared.weight": model.shared.weight}, "optimizer": {}}, model.config, about)
        writer.finish()
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"step-{step:08d}" for step in reversed(left)]
    assert (tmp_path / "latest").read_text() == f"step-{left[-1]:08d}\n"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["state/__0_0.distcp", "state/.metadata", "model.json", "manifest.json"])
def test_damage_is_noticed(copy: Path, name: str, harm: Callable[[Path], None]) -> None:
    read_manifest(copy)
    harm(copy / name)
    with pytest.raises(UserError, match=rf"{copy} is damaged: {name} "):
        read_manifest(copy)


def test_a_manifest_that_was_edited_is_noticed(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    content["step"] = 6
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not match its own checksum"):
        read_manifest(copy)


@pytest.mark.parametrize("moment", ["save", "write_json", "_checksums", "fsync"])
def test_a_failure_at_any_moment_leaves_the_earlier_ones(
    copy: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = copy.parent
    before = sorted(path.name for path in folder.rglob("*"))

    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    target = {"save": "t0train.checkpoint.writer.state_dict_saver.save", "fsync": "os.fsync"}
    monkeypatch.setattr(target.get(moment, f"{module.__name__}.{moment}"), fail)
    with pytest.raises(UserError, match=r"cannot write .*step-00000009.*: the disk is full"):
        write(folder, *trained(), 9, keep=1)
    monkeypatch.undo()
    assert sorted(path.name for path in folder.rglob("*")) == before
    read_manifest(copy)


def test_leftovers_of_a_killed_process_are_removed(copy: Path) -> None:
    folder = copy.parent
    work_folder(folder / "step-00000007", ".tmp").joinpath("state").mkdir()
    work_folder(folder / "step-00000001", ".old").joinpath("step-00000001").mkdir()
    remove_leftovers(folder, exclusive=True)
    assert [path.name for path in folder.iterdir()] == [copy.name]


def test_set_aside(copy: Path) -> None:
    aside = set_aside(copy)
    assert aside.name == f"aside-{copy.name}"
    assert list_checkpoints(copy.parent) == []
    shutil.copytree(aside, copy)
    assert set_aside(copy).name == f"aside-{copy.name}.1"


def test_asynchronous_is_what_it_was_at_the_start(tmp_path: Path) -> None:
    model, optimizer = trained()
    writer = CheckpointWriter(tmp_path, keep=2, asynchronous=True, world=World())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in (1, 2):
        writer.start(state_of(model, optimizer), model.config, manifest(step))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
    assert list_checkpoints(tmp_path)[-1].name == "step-00000001", "the one before is complete when the next begins"
    assert writer.finish() == tmp_path / "step-00000002"
    assert writer.finish() is None
    for name, parameter in load_model(tmp_path / "step-00000001").named_parameters():
        assert torch.equal(parameter, before[name])
    assert all(bool((parameter == 1).all()) for parameter in load_model(tmp_path / "step-00000002").parameters())


def test_the_thread_that_writes_keeps_to_its_process_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: chosen.append((threading.current_thread().name, gpu)))
    world = World(device=torch.device("cuda", 3))
    writer = CheckpointWriter(tmp_path, keep=1, world=world, asynchronous=True)
    model, optimizer = trained()
    writer.start(state_of(model, optimizer), model.config, manifest(1))
    writer.finish()
    assert chosen == [("checkpoint_0", torch.device("cuda", 3))]


def test_an_asynchronous_failure_is_raised_later(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    model, optimizer = trained()
    writer = CheckpointWriter(copy.parent, keep=1, asynchronous=True, world=World())
    before = sorted(path.name for path in copy.parent.rglob("*"))
    monkeypatch.setattr(f"{module.__name__}._checksums", fail)
    writer.start(state_of(model, optimizer), model.config, manifest(9))
    with pytest.raises(UserError, match=r"cannot write .*step-00000009.*: the disk is full"):
        writer.finish()
    assert sorted(path.name for path in copy.parent.rglob("*")) == before


def test_a_checkpoint_of_another_model_does_not_fit(copy: Path) -> None:
    other = init_model("tiny", vocab_size=161, d_model=128, d_ff=16, d_kv=8)
    optimizer = build_optimizer(other.named_parameters(), OptimizerConfig())
    with pytest.raises(UserError, match=r"cannot be read into this model or optimizer: .*Size mismatch"):
        read_state(copy, state_of(other, optimizer))
    deeper = init_model("tiny", vocab_size=160, d_model=128, d_ff=16, d_kv=8, num_layers=3)
    optimizer = build_optimizer(deeper.named_parameters(), OptimizerConfig())
    with pytest.raises(UserError, match=r"cannot be read into this model or optimizer: .*block\.2"):
        read_state(copy, state_of(deeper, optimizer))
