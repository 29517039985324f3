"""Everything before the first step: checkpoint or initial weights, model, engine, the files of the run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from t0train.checkpoint import CheckpointWriter, read_state, set_aside
from t0train.config import RunConfig, config_hash, deviations, dump_config
from t0train.config.architecture import T5Config, read_architecture
from t0train.config.resolve import run_folder
from t0train.core.events import EventLog
from t0train.core.files import (
    make_folder,
    prove_renames,
    refuse_linked_folders,
    remove_leftovers,
    write_atomic,
    write_json,
)
from t0train.core.lock import hold_folder
from t0train.core.processes import StopRequest
from t0train.core.run_folder import RunFolder
from t0train.data import LoaderState, PackedLoader, Vocabulary
from t0train.distributed import World, build_engine, precision, require_agreement
from t0train.model import (
    T5,
    check_packing,
    check_vocabulary,
    check_vocabulary_size,
    compile_blocks,
    find_weights,
    init_weights,
    meta_model,
    open_initial_weights,
)
from t0train.training.callbacks import Checkpointer, EventLogger
from t0train.training.gpu_memory import probe_memory
from t0train.training.resume import ResumePoint, accept, find_resume_point, identity
from t0train.training.trainer import Trainer, TrainState

Notify = Callable[[str], None]
"""Takes a remark for the user."""
State = dict[str, Any]
_CANARY_ROWS = 8  # the packing self-check takes the row with most examples


def ignore(remark: str) -> None:
    """Drop a remark: in processes that leave speaking to the first one."""


def build_trainer(
    config: RunConfig,
    loader: PackedLoader,
    resume: str,
    world: World,
    force_new_mixture: bool = False,
    notify: Notify = ignore,
    stop: StopRequest | None = None,
) -> Trainer:
    """Begin a run, or bring one back to its newest whole checkpoint. The first process holds the run folder's lock.

    Args:
        config: the run.
        loader: its rows.
        resume: see `t0train.training.train`.
        world: the processes.
        force_new_mixture: continue from a checkpoint of another mixture.
        notify: takes remarks for the user.
        stop: set when a signal arrives.

    Raises:
        UserError: nothing to resume, another run's checkpoint, a vocabulary larger than the model's embedding, links to
            other folders where checkpoints are written.
    """
    folder = run_folder(config)
    point = world.from_first(lambda: _find_point(config, loader, folder, resume, force_new_mixture, notify))
    architecture, load = _continuing(point) if point else _beginning(config, loader.vocabulary, world, notify)
    engine = build_engine(build_model(config, loader, architecture, world), config, world)
    if config.train.probe_memory:
        probe_memory(engine, config)
    tensors = engine.state()
    load(tensors)
    engine.load_state(tensors)
    log = EventLog(folder.events, is_open=world.is_first)
    if world.is_first:
        _write_beginnings(config, loader, folder, point, log, notify)
        _warn_of_disk_use(config, tensors, notify)
    state, saved_step = TrainState(), None
    if point:
        manifest = point.manifest
        state = TrainState(manifest.step, LoaderState(*manifest.rows), list(manifest.changes))
        saved_step = manifest.step if point.is_in(folder) else None
    checkpoint = config.train.checkpoint
    writer = CheckpointWriter(
        folder.checkpoints, checkpoint.keep, world, checkpoint.asynchronous, config.train.stays_every
    )
    callbacks = [EventLogger(log), Checkpointer(writer, log, saved_step)]
    return Trainer(config, folder, loader, engine, state, callbacks, stop)


def _find_point(
    config: RunConfig, loader: PackedLoader, folder: RunFolder, resume: str, force_new_mixture: bool, notify: Notify
) -> ResumePoint | None:
    refuse_linked_folders(folder.path, folder.checkpoints)
    remove_leftovers(folder.path, exclusive=True)
    remove_leftovers(folder.checkpoints, exclusive=True)
    point = find_resume_point(resume, folder, notify)
    if point is None:
        return None
    accepted = accept(point, identity(config, loader), config.train.steps, force_new_mixture)
    notify(f"continuing from step {accepted.manifest.step:,} ({accepted.path})")
    return accepted


def _write_beginnings(
    config: RunConfig, loader: PackedLoader, folder: RunFolder, point: ResumePoint | None, log: EventLog, notify: Notify
) -> None:
    """The files of a run folder that are there before the first step."""
    for later in point.superseded if point else ():
        notify(
            f"{later.name} of {folder} is now {set_aside(later).name}: the run continues from {point and point.path}."
        )
    make_folder(folder.checkpoints)
    prove_renames(folder.checkpoints)
    write_atomic(folder.config, dump_config(config))
    changes = point.manifest.changes if point else []
    write_json(folder.deviations, [deviation.as_dict() for deviation in deviations(config)] + changes)
    step = point.manifest.step if point else 0
    if point and point.is_in(folder):
        log.rewind(step)
        log.append("resume", step=step, config=config_hash(config))
        return
    log.path.unlink(missing_ok=True)
    log.append(
        "start",
        step=step,
        config=config_hash(config),
        checkpoint=str(point.path) if point else None,
        mixture=loader.mixture.hash,
        remarks=list(loader.mixture.remarks),
        probabilities=dict(zip(loader.task_names, loader.mixture.probabilities.tolist(), strict=True)),
    )


def _warn_of_disk_use(config: RunConfig, state: State, notify: Notify) -> None:
    """Checkpoints that are never removed can fill a disk."""
    every = config.train.stays_every
    if every is None:
        return
    tensors = [*state["model"].values(), *(one for slots in state["optimizer"].values() for one in slots.values())]
    gigabytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e9
    number = len({*range(every, config.train.steps + 1, every), config.train.steps})
    why = "train.checkpoint.keep_every" if config.train.checkpoint.keep_every else "train.select compares them"
    notify(f"{number} checkpoints of {gigabytes:.2g} GB will stay, {number * gigabytes:.2g} GB in all ({why})")


def build_model(config: RunConfig, loader: PackedLoader, architecture: T5Config, world: World) -> T5:
    """The model in training mode, without memory: it gets that, and weights, when processes share it.

    Raises:
        UserError: the vocabulary is larger than the embedding, or the packing self-check fails.
    """
    check_vocabulary_size(loader.vocabulary, architecture)
    model = meta_model(architecture, config.model.attention).train()
    model.backend(world.device, requires_grad=True)  # refused now rather than at the first step
    if config.train.canary:
        rows, _ = loader.take(LoaderState(), rows=_CANARY_ROWS)
        with precision(config.train, world.device):
            check_packing(_shallow(model, config.seed, world.device), rows)
    model.checkpoint_activations(config.train.activation_checkpointing)
    if config.train.compile:
        compile_blocks(model, world.device)
    return model


def _continuing(point: ResumePoint) -> tuple[T5Config, Callable[[State], None]]:
    """The architecture of a checkpoint's model, and what fills an engine's state with the checkpoint."""
    return read_architecture(point.path), partial(read_state, point.path)


def _beginning(
    config: RunConfig, vocabulary: Vocabulary, world: World, notify: Notify
) -> tuple[T5Config, Callable[[State], None]]:
    """The architecture of the model that a run starts from, and what fills an engine's state with its weights."""
    if config.model.init_from != "random":
        world.from_first(
            lambda: find_weights(config.model.init_from)
        )  # from the hub once; the others find it in the cache
    start = open_initial_weights(config)
    found = {"architecture": asdict(start.config), "folder": start.report and start.report.source.name}
    require_agreement(world, {f"model.init_from ({key})": value for key, value in found.items()})
    if start.report:
        check_vocabulary(start.report.source, vocabulary)
        notify(f"weights: {start.report}")

    def load(state: State) -> None:
        start.fill(state["model"])
        for slots in state["optimizer"].values():
            torch._foreach_zero_(list(slots.values()))  # probe_memory may have taken a step

    return start.config, load


def _shallow(model: T5, seed: int, device: torch.device) -> T5:
    """As wide as the model, whose weights may be spread over processes, and so shallow that each can have it whole."""
    config = replace(model.config, num_layers=2)
    shallow = meta_model(config, model.attention).to_empty(device=device)
    init_weights(dict(shallow.named_parameters()), config, seed)
    return shallow


def run_lock(folder: Path) -> AbstractContextManager[None]:
    """Make the run folder and hold it for this process.

    A folder that was made for a run that could not begin is removed again.

    Raises:
        UserError: another process trains in it, or it cannot be written to.
    """
    return hold_folder(folder, f"training in {folder} (another `output` or `name` gives a run its own folder)")
