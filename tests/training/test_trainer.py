"""The loop and what it promises to callbacks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from t0train.config import RunConfig
from t0train.core.processes import StopRequest
from t0train.core.run_folder import list_checkpoints
from t0train.data import open_loader
from t0train.distributed import World
from t0train.training import Callback, StepMetrics, Trainer
from t0train.training.setup import build_trainer


class Recorder(Callback):
    """Notes its calls; something is due after step 2. With `stop` a signal comes during that step."""

    def __init__(self, stop: StopRequest | None = None) -> None:
        self.stop = stop
        self.calls: list[tuple[str, int]] = []

    def after_step(self, trainer: Trainer, metrics: StepMetrics) -> None:
        self.calls.append(("step", trainer.state.step))
        assert metrics.plan.after == trainer.state.position
        if self.stop is not None and trainer.state.step == 2:
            self.stop.signal = "SIGTERM"

    def is_due(self, trainer: Trainer) -> bool:
        return trainer.state.step == 2

    def when_due(self, trainer: Trainer) -> None:
        self.calls.append(("due", trainer.state.step))

    def at_end(self, trainer: Trainer) -> None:
        self.calls.append(("end", trainer.state.step))


@pytest.fixture
def build(configure: Callable[..., RunConfig]) -> Callable[..., Trainer]:
    def build(stop: StopRequest | None = None) -> Trainer:
        config = configure("train.steps=3")
        return build_trainer(config, open_loader(config), "auto", World(), stop=stop)

    return build


def test_callbacks_follow_each_step_and_the_last(build: Callable[..., Trainer]) -> None:
    trainer, recorder = build(), Recorder()
    trainer.callbacks.append(recorder)
    trainer.fit()
    assert recorder.calls == [("step", 1), ("step", 2), ("due", 2), ("step", 3), ("end", 3)]
    assert trainer.is_done
    assert not trainer.is_stopped


def test_a_signal_ends_the_loop_with_a_checkpoint_and_nothing_more_is_due(build: Callable[..., Trainer]) -> None:
    stop = StopRequest()
    trainer, recorder = build(stop), Recorder(stop)
    trainer.callbacks.append(recorder)
    trainer.fit()
    assert recorder.calls == [("step", 1), ("step", 2), ("end", 2)]
    assert trainer.is_stopped
    assert not trainer.is_done
    assert [path.name for path in list_checkpoints(trainer.folder.checkpoints)] == ["step-00000002"]


def test_a_step_can_be_taken_by_hand(build: Callable[..., Trainer]) -> None:
    """Two steps by hand leave what `fit` would: the third of both is the same."""
    by_hand, whole = build(), build()
    position = by_hand.state.position
    for _ in range(2):
        plan = by_hand.loader.plan(position, rows=4)
        by_hand.step(by_hand.loader.read(plan), plan)
        position = plan.after
    losses: dict[str, float] = {}

    class Last(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def after_step(self, trainer: Trainer, metrics: StepMetrics) -> None:
            losses[self.name] = metrics.gradients.loss

    for name, trainer in (("by hand", by_hand), ("whole", whole)):
        trainer.callbacks = [Last(name)]
        trainer.fit()
    assert losses["by hand"] == losses["whole"]
