"""`train.compile` and `train.activation_checkpointing` reach the model, and the run stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from t0train.config import RunConfig
from t0train.core.errors import UserError
from t0train.core.events import read_events
from t0train.model import compile_blocks
from t0train.training import setup as training_setup
from t0train.training import train
from tests.training.helpers import assert_same_state, steps_of

pytestmark = pytest.mark.slow

SHORT = ("train.steps=2", "model.attention=sdpa", "train.batch={rows: 4, micro_batch_rows: 2}")


def test_a_compiled_and_checkpointed_run_is_the_plain_run(
    configure: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend `eager` traces blocks without compiling them, which would take minutes on a CPU."""
    torch._dynamo.reset()
    monkeypatch.setattr(training_setup, "compile_blocks", partial(compile_blocks, backend="eager"))
    plain = train(configure(*SHORT, f"output={tmp_path / 'plain'}"))
    changes = ("train.compile=true", "train.activation_checkpointing=block")
    compiled = train(configure(*SHORT, *changes, f"output={tmp_path / 'compiled'}"))
    assert steps_of(compiled.folder) == steps_of(plain.folder)
    assert_same_state(compiled.checkpoint, plain.checkpoint, tmp_path)
    first, second = (event["graphs_compiled"] for event in read_events(compiled.folder / "events.jsonl", "speed"))
    assert first == second >= 2  # of this process; nothing is compiled again
    assert not any("graphs_compiled" in event for event in read_events(plain.folder / "events.jsonl", "speed"))


def test_compiling_what_follows_the_data_is_refused(configure: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match=r"train\.compile needs fixed shapes"):
        train(configure("train.compile=true"))


def test_flex_cannot_be_trained_on_a_cpu(configure: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="no gradient on a CPU"):
        train(configure("model.attention=flex", "train.canary=false", "train.steps=1"))
