"""The largest possible rows, and what is said when memory runs out; torch's error is raised by hand, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.data import RowBatch
from t0train.distributed import Engine, World
from t0train.model import Batch, initial_model
from t0train.training import gpu_memory as memory_module
from t0train.training import train
from t0train.training.gpu_memory import GpuMemory, explain_out_of_memory, largest_rows, memory_facts, probe_memory
from tests.training.helpers import assert_same_state, steps_of

GIB = 2**30
XL = {"model": {"init_from": "random", "size": "xl", "attention": "eager"}, "train": {"batch": {"rows": 1024}}}


def test_the_largest_rows_are_full_on_both_sides_and_one_segment() -> None:
    config = RunConfig.model_validate({"data": {"max_inputs": 40, "max_targets": 12}})
    rows = largest_rows(config, 3)
    assert isinstance(rows, RowBatch)
    assert rows.input_ids.shape == (3, 40)
    assert rows.labels.shape == (3, 12)
    assert (rows.labels > 0).all()
    for segments in (rows.input_segments, rows.target_segments, rows.target_sources):
        assert (segments == 1).all()


def test_a_probed_run_is_the_run_that_was_not_probed(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    folders = []
    for probe in ("false", "true"):
        folder = tmp_path / probe
        result = train(configure(f"output={folder}", f"train.probe_memory={probe}", "train.steps=2"))
        folders.append(result.checkpoint)
    assert_same_state(folders[0], folders[1], tmp_path)
    assert steps_of(tmp_path / "true") == steps_of(tmp_path / "false")


def test_the_probe_runs_full_micro_batches_twice_and_leaves_no_gradient(
    configure: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("train.batch.rows=6", "train.batch.micro_batch_rows=4")
    engine = Engine(initial_model(config), config, World())
    seen: list[tuple[tuple[int, ...], bool]] = []
    backward = engine.backward

    def note(batch: Batch, denominator: float, is_last: bool) -> torch.Tensor:
        seen.append((tuple(batch.input_ids.shape), is_last))
        return backward(batch, denominator, is_last)

    monkeypatch.setattr(engine, "backward", note)
    probe_memory(engine, config)
    assert seen == [((4, config.data.max_inputs), False), ((4, config.data.max_inputs), True)]
    assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_the_log_has_the_measured_peak_beside_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "gpu_memory", lambda device: GpuMemory("Test GPU", 80 * GIB, 30 * GIB))
    facts = memory_facts(RunConfig.model_validate(XL), World())
    assert facts["device"] == "Test GPU"
    assert facts["measured_bytes"] == 30 * GIB
    kinds = dict(facts["estimated_bytes"])
    assert kinds.pop("total") == sum(kinds.values())
    assert kinds["parameters"] == 4 * 2_849_757_184  # of the published 3B model
    assert (
        memory_facts(RunConfig.model_validate({"model": {"init_from": "nobody/knows"}}), World())["estimated_bytes"]
        is None
    )


def run_out(config: RunConfig, monkeypatch: pytest.MonkeyPatch, size: float) -> str:
    monkeypatch.setattr(memory_module, "gpu_memory", lambda device: GpuMemory("Test GPU", int(size), int(0.99 * size)))
    with pytest.raises(UserError) as caught, explain_out_of_memory(config, World(), "doing step 1"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return str(caught.value)


def test_running_out_of_memory_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    first, estimated, title, *changes = run_out(RunConfig.model_validate(XL), monkeypatch, 40 * GIB).splitlines()
    assert "step 1" in first
    assert "Test GPU has 40.0 GiB" in first
    assert "peak was 39.6 GiB" in first
    assert "parameters 10.6 GiB, gradients 10.6 GiB" in estimated  # 2,849.8 M parameters of 4 bytes
    assert "change" in title
    assert 1 <= len(changes) <= 3
    assert any("train." in change or "model.attention=sdpa" in change for change in changes)


def test_changes_are_named_even_where_the_estimate_said_that_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    message = run_out(RunConfig.model_validate(XL), monkeypatch, 4000 * GIB)
    assert "train.batch.micro_batch_rows=" in message


def test_an_unknown_model_still_gets_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.model_validate({"model": {"init_from": "nobody/knows"}})
    assert "micro_batch_rows=1" in run_out(config, monkeypatch, 40 * GIB)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), explain_out_of_memory(RunConfig(), World(), "doing step 1"):
        raise ZeroDivisionError
