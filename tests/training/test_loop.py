"""Whole runs: what they write, and that killing or stopping them leaves no trace in the result."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from t0train.checkpoint import is_temporary
from t0train.config import RunConfig, load_config
from t0train.core.errors import UserError
from t0train.core.events import read_events
from t0train.core.run_folder import list_checkpoints
from t0train.data import LoaderState, open_loader
from t0train.distributed import Engine
from t0train.model import load_model
from t0train.optim import learning_rate
from t0train.training import NonFiniteError, train
from t0train.training.callbacks import rows_hash
from t0train.training.setup import run_lock
from tests.training.helpers import assert_same_state, start_training, steps_of, tensors, wait_for_step


def test_the_run_folder(straight: Path, world: Path) -> None:
    config = load_config(world / "run.yaml")
    assert load_config(straight / "config.resolved.yaml") == load_config(world / "run.yaml", [f"output={straight}"])
    sentences = {
        deviation["key"]: deviation["sentence"] for deviation in json.loads((straight / "deviations.json").read_text())
    }
    assert sentences["train.steps"].startswith("train.steps is 40 where T0 has 12200")
    assert "data.store" not in sentences

    steps = steps_of(straight)
    stream = open_loader(config)
    position = LoaderState()
    for index, event in enumerate(steps):
        rows, position = stream.take(position, rows=4)
        assert event["step"] == index + 1
        assert event["rows_hash"] == rows_hash(rows)
        assert event["tokens"] == int((rows.labels > 0).sum())
        assert event["examples"] == sum(event["tasks"].values()) == len(rows.example_ids)
        assert event["lr"] == learning_rate(config.optimizer, index, 40)
        slots = 4 * 24  # the default denominator counts padding
        assert event["loss"] == pytest.approx((event["cross_entropy"] + event["z_loss"]) * event["tokens"] / slots)
        assert all(math.isfinite(event[key]) for key in ("grad_norm", "update_rms"))
    assert len(steps) == 40
    assert sum(event["loss"] for event in steps[-5:]) < 0.5 * sum(event["loss"] for event in steps[:5]), "it learns"

    (start,) = read_events(straight / "events.jsonl", "start")
    assert start["probabilities"] == dict(zip(stream.task_names, stream.mixture.probabilities.tolist(), strict=True))
    assert [event["step"] for event in read_events(straight / "events.jsonl", "speed")] == list(range(1, 41))
    assert [event["step"] for event in read_events(straight / "events.jsonl", "checkpoint")] == [10, 20, 30, 40]
    assert sorted(path.name for path in (straight / "checkpoints").iterdir()) == [
        "latest",
        "step-00000030",
        "step-00000040",
    ]


def test_load_model_reads_the_run_folder(straight: Path, tmp_path: Path) -> None:
    saved = tensors(straight / "checkpoints" / "step-00000040", tmp_path)
    for name, parameter in load_model(straight).named_parameters():
        assert torch.equal(parameter, saved[f"/model/{name}"])


@pytest.mark.slow
def test_a_killed_run_continues_bit_by_bit(straight: Path, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_training(world / "run.yaml", f"output={folder}", "train.checkpoint.every=5")
    wait_for_step(process, folder, 17)
    process.kill()
    process.communicate()
    with (folder / "events.jsonl").open("a") as stream:
        stream.write('{"kind": "step", "st')  # killed in the middle of a line
    assert len(steps_of(folder)) < 40

    process = start_training(world / "run.yaml", f"output={folder}", "train.checkpoint.every=5", "--json")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["steps"] == 40
    (resumed,) = read_events(folder / "events.jsonl", "resume")
    assert resumed["step"] >= 15
    assert steps_of(folder) == steps_of(straight)
    assert_same_state(folder / "checkpoints" / "step-00000040", straight / "checkpoints" / "step-00000040", tmp_path)


def test_temporary_checkpoints_go_with_the_next(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = "train.checkpoint={every: 3, keep: 1, keep_every: 4, minutes: 1e-9}"  # overdue after each step
    train(configure(checkpoint, "train.steps=7"))
    written = read_events(run / "events.jsonl", "checkpoint")
    regular = {3, 4, 6, 7}
    assert [(event["step"], event["temporary"]) for event in written] == [(n, n not in regular) for n in range(1, 8)]
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == ["step-00000004", "step-00000007"]


@pytest.mark.slow
def test_a_killed_run_loses_no_more_than_the_minutes(straight: Path, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = (f"output={folder}", "train.checkpoint={every: 1000, minutes: 0.002}")
    process = start_training(world / "run.yaml", *settings)
    wait_for_step(process, folder, 17)
    process.kill()
    process.communicate()
    (newest, *others) = list_checkpoints(folder / "checkpoints")
    assert len(others) <= 1, "at most the one that was about to be removed"
    assert is_temporary(newest)

    process = start_training(world / "run.yaml", f"output={folder}", "train.checkpoint.every=1000")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    (resumed,) = read_events(folder / "events.jsonl", "resume")
    assert newest.name == f"step-{resumed['step']:08d}"
    assert resumed["step"] > 0
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step-00000040"]
    assert steps_of(folder) == steps_of(straight)
    assert_same_state(folder / "checkpoints" / "step-00000040", straight / "checkpoints" / "step-00000040", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_continues_bit_by_bit(
    straight: Path, world: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    process = start_training(world / "run.yaml", f"output={folder}")
    wait_for_step(process, folder, 13)
    process.send_signal(number)
    process.send_signal(number)  # impatience does no harm
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 85, stderr
    done = steps_of(folder)[-1]["step"]
    assert 13 <= done < 40
    assert f"{number.name} received; step {done} is saved in" in stderr
    assert (folder / "checkpoints" / "latest").read_text() == f"step-{done:08d}\n"

    process = start_training(world / "run.yaml", f"output={folder}")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert steps_of(folder) == steps_of(straight)
    assert_same_state(folder / "checkpoints" / "step-00000040", straight / "checkpoints" / "step-00000040", tmp_path)


@pytest.mark.slow
def test_several_threads_give_the_same_bits(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    torch.set_num_threads(2)
    results = []
    for name, workers in (("one", 0), ("two", 2)):
        folder = tmp_path / name
        config = configure(
            f"output={folder}",
            "train.steps=3",
            "train.batch.rows=16",
            "train.batch.micro_batch_rows=16",
            f"data.workers={workers}",
        )
        train(config)
        results.append(folder)
    assert steps_of(results[0]) == steps_of(results[1])
    one, other = (folder / "checkpoints" / "step-00000003" for folder in results)
    assert_same_state(one, other, tmp_path)


@pytest.mark.slow
def test_adamw_bf16_examples_and_clipping(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    overrides = (
        "optimizer={name: adamw, lr: 0.002, warmup: 2, schedule: linear, max_grad_norm: 0.5}",
        "train.batch={rows: null, examples: 9, micro_batch_rows: 2}",
        "train.precision=bf16",
        "train.steps=6",
        "train.checkpoint.every=3",
        "train.loss.denominator=tokens",
    )
    whole = tmp_path / "whole"
    train(configure(*overrides, f"output={whole}"))
    events = steps_of(whole)
    assert all(event["examples"] >= 9 > event["examples"] - 5 for event in events)
    assert "update_rms" not in events[0]
    assert events[0]["loss"] == pytest.approx(events[0]["cross_entropy"] + events[0]["z_loss"])
    assert [event["lr"] for event in events[:3]] == pytest.approx([0.001, 0.002, 0.002])

    resumed = tmp_path / "resumed"
    train(configure(*overrides, f"output={resumed}"), resume=str(whole / "checkpoints" / "step-00000003"))
    assert steps_of(resumed) == events[3:]
    one, other = (folder / "checkpoints" / "step-00000006" for folder in (whole, resumed))
    assert_same_state(one, other, tmp_path)


def test_a_loss_that_is_not_finite_stops_before_the_step(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step 2: the loss is .*colours_which \(\d+\)"):
        train(configure("optimizer.lr=1e38"))
    (step,) = steps_of(tmp_path / "run")
    assert step["step"] == 1
    assert list((tmp_path / "run" / "checkpoints").glob("step-*")) == []


def test_a_first_step_that_overflows_is_not_saved(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step 1: model\.\S+ holds infinite or undefined values"):
        train(configure("optimizer.lr=1e38", "train.checkpoint.every=1"))
    assert list((tmp_path / "run" / "checkpoints").glob("step-*")) == []


@pytest.mark.parametrize(("steps", "asynchronous"), [(40, "false"), (40, "true"), (20, "false")])
def test_weights_that_are_not_finite_are_neither_saved_nor_done(
    configure: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    asynchronous: str,
) -> None:
    """A row of the embedding that no text reads becomes infinite in step 20, after which the state is saved."""
    step, done = Engine.step, []

    def spoil(engine: Engine, rate: float, clip: float = 1.0) -> None:
        step(engine, rate, clip)
        done.append(rate)
        if len(done) == 20:
            with torch.no_grad():
                engine.model.shared.weight[-1, 0] = torch.inf

    monkeypatch.setattr(Engine, "step", spoil)
    settings = f"train.checkpoint={{every: 10, asynchronous: {asynchronous}}}"
    complaint = r"model\.shared\.weight holds infinite or undefined values after the optimizer step"
    with pytest.raises(NonFiniteError, match=rf"step 20: {complaint}"):
        train(configure(settings, f"train.steps={steps}", "model.vocabulary_size=330"))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-00000010"]


def test_one_trainer_in_a_folder(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    with (
        run_lock(tmp_path / "run"),
        pytest.raises(UserError, match=r"another process \(process \d+ .*\) is training in .*run \("),
    ):
        train(configure())
    assert not (tmp_path / "run").exists(), "nothing was begun in it"


def test_vocabulary_larger_than_the_embedding(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"pieces, but the model's embedding has 100 rows; .* raise model\.vocabulary_size"
    ):
        train(configure("model.vocabulary_size=100"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(configure: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match=r"train\.device is cuda, but this machine has no usable GPU"):
        train(configure("train.device=cuda"))
