"""Which checkpoint is taken, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.core.run_folder import RunFolder, list_checkpoints
from t0train.training import train
from t0train.training.resume import find_resume_point
from tests.training.helpers import assert_same_state, steps_of


@pytest.fixture
def run(straight: Path, tmp_path: Path) -> Path:
    """A copy of the 40-step run, with its checkpoints of steps 30 and 40."""
    return Path(shutil.copytree(straight, tmp_path / "run"))


def flip(checkpoint: Path) -> None:
    path = checkpoint / "state" / "__0_0.distcp"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(
    run: Path, straight: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    newest = list_checkpoints(run / "checkpoints")[0]
    flip(newest)
    said: list[str] = []
    result = train(configure(), notify=said.append)
    assert any("step-00000040 is damaged" in line and "Going back to step-00000030" in line for line in said)
    assert any("is now aside-step-00000040" in line for line in said)
    assert result.steps == 40
    assert steps_of(run) == steps_of(straight)
    assert_same_state(result.checkpoint, straight / "checkpoints" / "step-00000040", tmp_path)


def test_no_whole_checkpoint_is_an_error(run: Path, configure: Callable[..., RunConfig]) -> None:
    for checkpoint in list_checkpoints(run / "checkpoints"):
        flip(checkpoint)
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    with pytest.raises(UserError, match=r"no checkpoint is whole:\n  .*step-00000040.*\n  .*step-00000030"):
        train(configure())
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_resume_from_nothing_is_an_error(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"cannot resume from .*empty: an empty folder"):
        train(configure(), resume=str(empty))
    with pytest.raises(UserError, match=r"cannot resume from .*nowhere: no such folder"):
        train(configure(), resume=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no checkpoint"):
        train(configure(), resume=str(tmp_path))
    assert not (tmp_path / "run").exists()


def test_never_refuses_a_folder_with_checkpoints(run: Path, configure: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="already holds checkpoints up to step-00000040, and resume is `never`"):
        train(configure(), resume="never")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optimizer.lr=0.02", r"optimizer\.lr: 0\.01 in the checkpoint, 0\.02 now"),
        ("model.size=mini", r"model\.size: 'tiny' in the checkpoint, 'mini' now"),
        ("seed=1", r"seed: 0 in the checkpoint, 1 now"),
        ("mixture.rate=proportional", r"mixture \(content hash\): '\w+' in the checkpoint, '\w+' now\n  mixture.rate"),
        ("optimizer.schedule=linear", r"schedule: 'constant' in the checkpoint, 'linear' now\n  train\.steps"),
        ("train.steps=39", r"has 40 steps behind it, but train\.steps is 39"),
    ],
)
def test_another_run_is_refused_with_both_values(
    run: Path, configure: Callable[..., RunConfig], override: str, complaint: str
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(UserError, match=complaint):
        train(configure(override))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_another_vocabulary_is_refused(
    run: Path, world: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    from t0train.data import prepare
    from tests.training.conftest import write_vocabulary

    write_vocabulary(tmp_path / "other.model", ["another text for another vocabulary " * 20, "red green blue"])
    config = configure(f"data.vocabulary={tmp_path / 'other.model'}", f"data.store={tmp_path / 'store'}")
    prepare(config)
    with pytest.raises(UserError, match=r"vocabulary \(fingerprint\): '\w+' in the checkpoint, '\w+' now"):
        train(config)


def test_what_does_not_change_the_run_may_change(
    run: Path, world: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    moved = tmp_path / "moved.model"
    shutil.copy(world / "spiece.model", moved)
    result = train(
        configure("train.steps=42", "train.batch.micro_batch_rows=4", "data.workers=0", f"data.vocabulary={moved}")
    )
    assert result.steps == 42
    assert [event["step"] for event in steps_of(run)] == list(range(1, 43))


def test_resume_from_an_earlier_checkpoint_puts_the_later_one_aside(
    run: Path, straight: Path, configure: Callable[..., RunConfig]
) -> None:
    train(configure("train.steps=32"), resume=str(run / "checkpoints" / "step-00000030"))
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-00000032", "step-00000030"]
    assert (run / "checkpoints" / "aside-step-00000040").is_dir()
    assert steps_of(run) == steps_of(straight)[:32]


def test_resume_from_another_folder(
    straight: Path, configure: Callable[..., RunConfig], tmp_path: Path, run: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    result = train(configure("train.steps=41", f"output={elsewhere}"), resume=str(straight))
    assert result.steps == 41
    assert [event["step"] for event in steps_of(elsewhere)] == [41]
    with pytest.raises(UserError, match="has checkpoints of its own, up to step-00000040"):
        find_resume_point(str(straight), RunFolder(run), print)


def test_a_complete_run_returns_its_result(run: Path, straight: Path, configure: Callable[..., RunConfig]) -> None:
    result = train(configure())
    assert result.loss == steps_of(straight)[-1]["loss"]
    assert result.steps == 40


def test_another_mixture_may_be_forced_and_is_remembered(
    run: Path, straight: Path, configure: Callable[..., RunConfig]
) -> None:
    with pytest.raises(UserError, match=r"accept another mixture with --force-new-mixture"):
        train(configure("mixture.rate=proportional", "train.steps=42"))
    with pytest.raises(UserError, match=r"optimizer\.lr: 0\.01 in the checkpoint, 0\.02 now\nSet these keys back"):
        train(configure("mixture.rate=proportional", "optimizer.lr=0.02"), force_new_mixture=True)
    train(configure("mixture.rate=proportional", "train.steps=42"), force_new_mixture=True)
    assert steps_of(run)[:40] == steps_of(straight)
    train(configure("mixture.rate=proportional", "train.steps=43"))  # no longer another mixture
    forced = {
        deviation["key"]: deviation
        for deviation in json.loads((run / "deviations.json").read_text())
        if "--force-new-mixture" in deviation["sentence"]
    }
    assert forced.keys() == {"mixture (content hash)", "mixture.rate"}
    assert forced["mixture.rate"]["sentence"] == (
        "mixture.rate is proportional from step 41 on; the steps before had equal (--force-new-mixture)."
    )
    assert (forced["mixture.rate"]["value"], forced["mixture.rate"]["reference"]) == ("proportional", "equal")
