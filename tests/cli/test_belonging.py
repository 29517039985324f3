"""What does not belong together is refused by every command that opens a run's model; what only moved is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from t0train.config import load_config
from t0train.training import train
from tests.cli.test_eval import Ended, t0train
from tests.evals.films import train_on_films, train_vocabulary, write_films


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and another that has another seed only."""
    folder = write_films(tmp_path_factory.mktemp("films"))
    run = train_on_films(folder)
    train(load_config(folder / "run.yaml", ["seed=7", f"output={folder / 'other'}"]))
    return run, folder / "other"


@pytest.fixture
def copy(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the run, whose vocabulary is a copy too, in `vocabulary/` beside it."""
    copy = shutil.copytree(runs[0], tmp_path / "run")
    (tmp_path / "vocabulary").mkdir()
    vocabulary = shutil.copy(runs[0].parent / "spiece.model", tmp_path / "vocabulary" / "moved.model")
    edit(copy, str(runs[0].parent / "spiece.model"), str(vocabulary))
    return copy


def edit(run: Path, before: str, after: str) -> None:
    resolved = run / "config.resolved.yaml"
    text = resolved.read_text()
    assert before in text
    resolved.write_text(text.replace(before, after))


def other_vocabulary(copy: Path, runs: tuple[Path, Path]) -> None:
    other = train_vocabulary(copy.parent, "strange", ["quite other words that nobody used before"] * 50)
    shutil.copy(other, copy.parent / "vocabulary" / "moved.model")


def edited_vocabulary(copy: Path, runs: tuple[Path, Path]) -> None:
    other = train_vocabulary(copy.parent, "strange", ["quite other words that nobody used before"] * 50)
    edit(copy, str(copy.parent / "vocabulary" / "moved.model"), str(other))


def foreign_checkpoints(copy: Path, runs: tuple[Path, Path]) -> None:
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(runs[1] / "checkpoints", copy / "checkpoints")


def foreign_newest_checkpoint(copy: Path, runs: tuple[Path, Path]) -> None:
    newest = copy / "checkpoints" / "step-00000002"
    shutil.rmtree(newest)
    shutil.copytree(runs[1] / "checkpoints" / newest.name, newest)


def edited_seed(copy: Path, runs: tuple[Path, Path]) -> None:
    edit(copy, "\nseed: 0\n", "\nseed: 3\n")


def edited_rate(copy: Path, runs: tuple[Path, Path]) -> None:
    edit(copy, "lr: 0.01", "lr: 0.02")


def edited_start(copy: Path, runs: tuple[Path, Path]) -> None:
    edit(copy, "size: tiny", "size: mini")


def edited_mixture(copy: Path, runs: tuple[Path, Path]) -> None:
    edit(copy, "rate: default", "rate: equal")


def renamed_checkpoint(copy: Path, runs: tuple[Path, Path]) -> None:
    (copy / "checkpoints" / "step-00000002").rename(copy / "checkpoints" / "step-00000009")


MISMATCHES: dict[Callable[[Path, tuple[Path, Path]], None], str] = {
    other_vocabulary: "is not the vocabulary that",
    edited_vocabulary: "is not the vocabulary that",
    foreign_checkpoints: "seed: 7 in the checkpoint, 0 in the configuration",
    foreign_newest_checkpoint: "seed: 7 in the checkpoint, 0 in the configuration",
    edited_seed: "seed: 0 in the checkpoint, 3 in the configuration",
    edited_rate: "optimizer.lr: 0.01 in the checkpoint, 0.02 in the configuration",
    edited_start: "model.size: 'tiny' in the checkpoint, 'mini' in the configuration",
    edited_mixture: "mixture.rate: 'default' in the checkpoint, 'equal' in the configuration",
    renamed_checkpoint: "is the checkpoint of step 2, as its manifest says",
}
COMMANDS: dict[str, Callable[[Path, Path], Ended]] = {
    "eval": lambda run, out: t0train("eval", run, "--out", out),
    "eval --untrained": lambda run, out: t0train("eval", run, "--untrained", "--out", out),
    "eval --nproc": lambda run, out: t0train("eval", run, "--nproc", "2", "--out", out),
    "generate": lambda run, out: t0train("generate", run, "the film was good"),
    "export": lambda run, out: t0train("export", run, out),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("change", MISMATCHES, ids=lambda change: change.__name__)
def test_what_is_not_of_one_run_is_refused(
    runs: tuple[Path, Path], copy: Path, change: Callable[[Path, tuple[Path, Path]], None], command: str
) -> None:
    change(copy, runs)
    before = sorted(copy.rglob("*"))
    ended = COMMANDS[command](copy, copy.parent / "out")
    assert ended.returncode == 2, ended.stderr
    assert MISMATCHES[change] in ended.stderr
    assert ended.stdout == ""
    assert not (copy.parent / "out").exists()
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize("change", [foreign_checkpoints, edited_rate, edited_seed], ids=lambda change: change.__name__)
def test_such_a_run_is_not_continued(
    runs: tuple[Path, Path], copy: Path, change: Callable[[Path, tuple[Path, Path]], None]
) -> None:
    change(copy, runs)
    ended = t0train("train", copy / "config.resolved.yaml", f"output={copy}", "train.steps=3")
    assert ended.returncode == 2, ended.stderr
    assert MISMATCHES[change].replace("in the configuration", "now") in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_what_only_moved_or_runs_elsewhere_is_taken(copy: Path, command: str) -> None:
    """Folder and vocabulary lie elsewhere, and so will rows and store; the device is another key that cannot matter."""
    edit(copy, "device: cpu", "device: auto")
    edit(copy, "workers: 2", "workers: 1")
    ended = COMMANDS[command](copy, copy.parent / "out")
    assert ended.returncode == 0, ended.stderr


def test_an_earlier_checkpoint_of_a_run_whose_mixture_was_changed_is_taken(copy: Path) -> None:
    arguments = [f"output={copy}", "mixture.rate=equal", "train.steps=3", "--force-new-mixture"]
    ended = t0train("train", copy / "config.resolved.yaml", *arguments)
    assert ended.returncode == 0, ended.stderr
    for source in (copy, copy / "checkpoints" / "step-00000002"):
        ended = t0train("generate", source, "the film was good")
        assert ended.returncode == 0, ended.stderr
    edit(copy, "lr: 0.01", "lr: 0.02")
    assert "optimizer.lr" in t0train("generate", copy / "checkpoints" / "step-00000002", "the film").stderr


def test_a_checkpoint_on_its_own_wants_its_vocabulary(runs: tuple[Path, Path], tmp_path: Path) -> None:
    alone = shutil.copytree(runs[0] / "checkpoints" / "step-00000002", tmp_path / "alone")
    assert "has no spiece.model" in t0train("generate", alone, "the film").stderr
    shutil.copy(runs[0].parent / "spiece.model", alone)
    expected = t0train("generate", runs[0], "the film was good").stdout
    assert t0train("generate", alone, "the film was good").stdout == expected
    shutil.copy(train_vocabulary(tmp_path, "strange", ["quite other words"] * 50), alone / "spiece.model")
    for command in ("generate", "eval"):
        arguments = ["the film"] if command == "generate" else ["--suite", str(runs[0].parent / "suite.yaml")]
        ended = t0train(command, alone, *arguments)
        assert ended.returncode == 2
        assert "is not the vocabulary that" in ended.stderr


def test_export_takes_runs_alone(runs: tuple[Path, Path], tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    assert t0train("export", runs[0] / "checkpoints" / "step-00000001", exported).returncode == 0
    for source, message in ((exported, "is not a run folder"), (tmp_path / "typo", "there is no run folder")):
        ended = t0train("export", source, tmp_path / "again")
        assert ended.returncode == 2
        assert message in ended.stderr
    assert not (tmp_path / "again").exists()


def test_export_leaves_runs_and_other_folders_alone(runs: tuple[Path, Path], copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.parent.rglob("*")}
    for out, message in (
        (copy, "not empty"),
        (copy.parent, "not empty"),
        (copy / "checkpoints", "among the run's checkpoints"),
        (copy / "checkpoints" / "step-00000009", "among the run's checkpoints"),
        (copy / "checkpoints" / "step-00000002", "among the run's checkpoints"),
        (copy / "config.resolved.yaml", "is a file"),
        (copy / "config.resolved.yaml" / "x", "a part of that path is a file"),
    ):
        ended = t0train("export", copy, out)
        assert ended.returncode == 2, ended.stderr
        assert message in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in copy.parent.rglob("*")} == before


def spoilt(change: Callable[[Path], None], exported: Path, folder: Path) -> Path:
    spoilt = shutil.copytree(exported, folder)
    change(spoilt)
    return spoilt


def swap_vocabulary(folder: Path) -> None:
    shutil.copy(train_vocabulary(folder.parent, "strange", ["quite other words"] * 50), folder / "spiece.model")


def swap_all_but_the_weights(folder: Path) -> None:
    swap_vocabulary(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def add_tokens(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<table>": 380}))


def test_an_exported_folder_is_one_model(runs: tuple[Path, Path], tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    assert t0train("export", runs[0], exported).returncode == 0
    suite = str(runs[0].parent / "suite.yaml")
    for number, change in enumerate((swap_vocabulary, add_tokens)):
        folder = spoilt(change, exported, tmp_path / f"spoilt{number}")
        for arguments in (("generate", folder, "the film"), ("eval", folder, "--suite", suite)):
            ended = t0train(*arguments)
            assert ended.returncode == 2, ended.stderr
            assert "was made for another vocabulary" in ended.stderr
    assert t0train("generate", exported, "the film").returncode == 0


@pytest.mark.parametrize("change", [swap_vocabulary, add_tokens, swap_all_but_the_weights])
def test_training_does_not_start_from_a_model_of_another_vocabulary(
    runs: tuple[Path, Path], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    exported = tmp_path / "exported"
    assert t0train("export", runs[0], exported).returncode == 0
    folder = spoilt(change, exported, tmp_path / "spoilt")
    arguments = [f"output={tmp_path / 'new'}", "model.size=''", "train.steps=1"]
    ended = t0train("train", runs[0].parent / "run.yaml", f"model.init_from={folder}", *arguments)
    assert ended.returncode == 2, ended.stderr
    assert "was made for another vocabulary" in ended.stderr
    assert not (tmp_path / "new" / "checkpoints" / "step-00000001").exists()
    ended = t0train("train", runs[0].parent / "run.yaml", f"model.init_from={exported}", *arguments)
    assert ended.returncode == 0, ended.stderr


def test_training_does_not_start_from_a_run_of_another_vocabulary(runs: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint = shutil.copytree(runs[0] / "checkpoints" / "step-00000002", tmp_path / "alone")
    other = train_vocabulary(tmp_path, "strange", ["the film was good or bad yes no or not very much so"] * 50)
    arguments = [f"output={tmp_path / 'new'}", "model.size=''", "train.steps=1", f"data.vocabulary={other}"]
    config = runs[0].parent / "run.yaml"
    assert t0train("data", "prepare", config, *arguments, "model.init_from=google/t5-small").returncode == 0
    ended = t0train("train", config, f"model.init_from={checkpoint}", *arguments)
    assert ended.returncode == 2, ended.stderr
    assert "is not the vocabulary that" in ended.stderr
