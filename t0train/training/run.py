"""`train`: from a configuration to a trained model."""

from __future__ import annotations

import math
import sys
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from t0train.config import RunConfig
from t0train.config.resolve import resolve_replicas, resolve_strategy, run_folder
from t0train.core.console import Advance, progress
from t0train.core.errors import PreemptedError
from t0train.core.events import read_events
from t0train.core.processes import StopRequest, stop_on_signals
from t0train.data import PackedLoader, open_loader
from t0train.distributed import World, code_and_settings, find_place, join, require_agreement
from t0train.mixture import check_leaks, describe_leaks, leak_notes
from t0train.training.callbacks import ProgressBar
from t0train.training.resume import identity
from t0train.training.setup import Notify, build_trainer, ignore, run_lock
from t0train.training.trainer import Trainer


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: the run folder.
        steps: optimizer steps done in all.
        loss: what the last step minimised; NaN if the run was complete before and its events are gone.
        cross_entropy: per real target token of the last step, in nats.
        checkpoint: the checkpoint of the last step.
    """

    folder: Path
    steps: int
    loss: float
    cross_entropy: float
    checkpoint: Path


def _to_stderr(remark: str) -> None:
    print(remark, file=sys.stderr, flush=True)


def train(
    config: RunConfig, resume: str = "auto", notify: Notify = _to_stderr, force_new_mixture: bool = False
) -> RunResult:
    """Train from the start, or continue where the run folder's newest whole checkpoint ends.

    A continued run is the run that was begun: the same rows, dropout masks and learning rates, bit by bit on a CPU.
    Under torchrun or srun every process calls this; what it does is the same, up to the order of sums, for any number
    of processes and any strategy, and a run may be continued with others.

    Args:
        config: the run.
        resume: `auto`, `never`, or the path of a run folder or checkpoint to continue from, which must exist.
        notify: takes remarks for the user.
        force_new_mixture: continue from a checkpoint of another mixture; deviations.json says so.

    Raises:
        UserError: bad input, processes that differ in code, configuration or data, a mixture that holds what the suite
            judges (`leaks.held_out`), a full or read-only disk, or a loss that is not finite (`NonFiniteError`).
        PreemptedError: SIGTERM or SIGUSR1 came; a checkpoint of the step then done is written, if one was done.
        LostContactError: another process of the run is gone.
        QuietError: another process of the run raises one of these.
    """
    place = find_place()
    shared = place.size > 1 or resolve_strategy(config.train, place.size) != "single"
    with stop_on_signals() as stop, join(place, config.train.device, shared, config.train.timeout_s) as world:
        require_agreement(world, {**code_and_settings(config), "--force-new-mixture": force_new_mixture})
        _refuse_what_does_not_fit(config, world)
        return _train(config, resume, world, notify if world.is_first else ignore, force_new_mixture, stop)


def _refuse_what_does_not_fit(config: RunConfig, world: World) -> None:
    """Once for all processes, before anything large is opened."""
    strategy = resolve_strategy(config.train, world.size)
    if strategy == "hsdp":
        resolve_replicas(config.train, world.size, world.place.local_size)
    if strategy == "deepspeed":
        from t0train.distributed.zero.deepspeed_config import deepspeed_config

        deepspeed_config(config, world.device)


def _train(
    config: RunConfig, resume: str, world: World, notify: Notify, force_new_mixture: bool, stop: StopRequest
) -> RunResult:
    notify(f"run folder: {run_folder(config)}")
    loader = _open_loader(config, world)
    _end_if_stopped(stop, world)
    leaks = describe_leaks(check_leaks(loader.mixture, config))
    for remark in (*loader.mixture.remarks, *leak_notes(leaks)):
        notify(remark)
    with run_lock(run_folder(config).path) if world.is_first else nullcontext():
        trainer = build_trainer(config, loader, resume, world, force_new_mixture, notify, stop)
        if not trainer.is_done:
            _end_if_stopped(stop, world)
        with _progress(trainer) as advance:
            trainer.callbacks.append(ProgressBar(advance))
            trainer.fit()
        step = trainer.state.step
        checkpoint = trainer.folder.checkpoint(step)
        if not trainer.is_done:
            saved = f"{stop.signal or 'a signal'} received; step {step} is saved in {checkpoint}"
            raise PreemptedError(f"{saved}; run the same command again to continue.")
        return world.from_first(lambda: _result(trainer, checkpoint))


def _progress(trainer: Trainer) -> AbstractContextManager[Advance]:
    """A bar in the first process."""
    if not trainer.world.is_first:
        return nullcontext(lambda amount=1, note="": None)
    return progress("train", trainer.config.train.steps, "steps", done=trainer.state.step)


def _end_if_stopped(stop: StopRequest, world: World) -> None:
    """While a run starts there is nothing to save."""
    if world.any(bool(stop)):
        raise PreemptedError(f"{stop.signal or 'a signal'} received before the first step; run the same command again.")


def _open_loader(config: RunConfig, world: World) -> PackedLoader:
    """The first process checks the token store, then the others open it, and find the same there."""
    opened: list[PackedLoader] = []
    world.from_first(lambda: opened.append(open_loader(config)))
    world.together(lambda: None if opened else opened.append(open_loader(config, verify=False)))
    require_agreement(world, identity(config, opened[0]))
    return opened[0]


def _result(trainer: Trainer, checkpoint: Path) -> RunResult:
    last = deque(read_events(trainer.folder.events, "step"), maxlen=1)
    event = last[0] if last else {}
    found = [event.get(key) for key in ("loss", "cross_entropy")]
    loss, cross_entropy = (float(value) if isinstance(value, int | float) else math.nan for value in found)
    return RunResult(trainer.folder.path, trainer.state.step, loss, cross_entropy, checkpoint)
