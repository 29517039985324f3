"""A training run in memory: what it needs at each step, and the files that it writes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from t0train.checkpoint import Manifest, read_state
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
from t0train.core.seeds import derive_seed
from t0train.data import RowBatch, RowPlan, RowState, RowStream, Vocabulary
from t0train.distributed import Engine, World, build_engine, precision, require_agreement
from t0train.model import (
    T5,
    canary,
    check_vocabulary,
    check_vocabulary_size,
    compile_blocks,
    find_weights,
    graph_count,
    init_weights,
    meta_model,
    open_start,
)
from t0train.optim import Adafactor, learning_rate
from t0train.train.checkpoint import CheckpointWriter, set_aside
from t0train.train.memory import explain_out_of_memory, memory_facts, probe_memory
from t0train.train.resume import CHECKPOINTS, ResumePoint, accept, find_resume_point, identity
from t0train.train.step import Gradients, clip_factor, compute_gradients, refuse_non_finite, refuse_non_finite_state

Say = Callable[[str], None]
State = dict[str, Any]
_CANARY_ROWS = 8  # the canary takes the row with most examples


@dataclass
class Run:
    """The state of a run between two steps. `step` counts the steps done; `position` is the next row of the stream."""

    config: RunConfig
    folder: Path
    stream: RowStream
    engine: Engine
    writer: CheckpointWriter
    log: EventLog
    step: int
    position: RowState
    saved_step: int | None
    changes: list[dict[str, Any]]
    is_measured: bool = False  # whether the log says what memory a step took
    saved_at: float = field(default_factory=time.monotonic)  # or begun, where nothing is saved yet
    _updates: dict[str, Any] = field(default_factory=dict)

    def advance(self, rows: RowBatch, plan: RowPlan, waited: float) -> Gradients:
        """Do a step and log it.

        Args:
            rows: the rows of this process.
            plan: all rows of the step.
            waited: seconds that the rows took to arrive.

        Raises:
            NonFiniteError: before the optimizer step, so that the parameters stay those of the step before.
        """
        started = time.perf_counter()
        config, index = self.config, self.step
        dropout_seed = derive_seed(config.seed, "dropout", index)
        with explain_out_of_memory(config, self.engine.world, f"doing step {index + 1}"):
            gradients = compute_gradients(self.engine, rows, plan, config.train, dropout_seed)
            refuse_non_finite(gradients, rows, self.stream.task_names, index + 1, self.engine.world)
            rate = learning_rate(config.optimizer, index, config.train.steps)
            self.engine.step(rate, clip_factor(gradients.norm, config.optimizer.max_grad_norm))
        self.step, self.position = index + 1, plan.after
        self._log_step(plan, gradients, rate)
        self._log_speed(plan, time.perf_counter() - started, waited)
        self._note_checkpoint(wait=False)
        return gradients

    def _log_step(self, plan: RowPlan, gradients: Gradients, rate: float) -> None:
        tokens, optimizer = plan.target_tokens, self.engine.optimizer
        fill_inputs, fill_targets = plan.fill
        drawn = Counter(self.stream.task_names[task] for task in plan.example_tasks.tolist())
        self.log.append(
            "step",
            step=self.step,
            loss=gradients.loss,
            cross_entropy=gradients.cross_entropy / tokens,
            z_loss=gradients.z_loss / tokens,
            lr=rate,
            grad_norm=gradients.norm,
            **({"update_rms": optimizer.total_update_rms} if isinstance(optimizer, Adafactor) else {}),
            tokens=tokens,
            examples=len(plan.example_ids),
            rows=len(plan),
            fill_inputs=fill_inputs,
            fill_targets=fill_targets,
            rows_hash=rows_hash(plan),
            tasks=dict(sorted(drawn.items())),
        )

    def _log_speed(self, plan: RowPlan, seconds: float, waited: float) -> None:
        whole = seconds + waited
        self.log.append(
            "speed",
            step=self.step,
            seconds=whole,
            waited_for_rows=waited,
            rows_per_s=len(plan) / whole,
            examples_per_s=len(plan.example_ids) / whole,
            input_tokens_per_s=plan.input_tokens / whole,
            target_tokens_per_s=plan.target_tokens / whole,
            **({"graphs_compiled": graph_count()} if self.config.train.compile else {}),
        )
        if self.engine.world.device.type == "cuda" and not self.is_measured:
            self.log.append("memory", step=self.step, **memory_facts(self.config, self.engine.world))
            self.is_measured = True

    @property
    def is_overdue(self) -> bool:
        """Whether a temporary checkpoint is due by the clock of the first process; False in the others."""
        minutes = self.config.train.checkpoint.minutes
        if minutes is None or not self.engine.world.is_first or self.writer.is_busy:
            return False
        return time.monotonic() - self.saved_at >= 60 * minutes

    def save(self, wait: bool = True) -> Path:
        """Write the checkpoint of this step, unless it is there; without `wait` perhaps in the background.

        It is a temporary one if `train.checkpoint` has none at this step.

        Raises:
            UserError: the disk is full or read-only; earlier checkpoints are as they were.
            NonFiniteError: a parameter or optimizer state is not finite in some process; nothing is written.
        """
        path = self.folder / CHECKPOINTS / f"step-{self.step:08d}"
        if self.saved_step != self.step:
            self._note_checkpoint()
            state = self.engine.state()
            refuse_non_finite_state(state, self.step, self.engine.world)
            manifest = Manifest(
                step=self.step,
                rows=(self.position.window, self.position.row),
                identity=identity(self.config, self.stream),
                config=config_hash(self.config),
                changes=self.changes,
                temporary=not self.config.train.is_regular(self.step),
            )
            self.log.flush()  # the events up to a checkpoint are as safe as the checkpoint
            self.saved_at = time.monotonic()
            self.writer.start(state, self.engine.model.config, manifest)
            self.saved_step, self._updates = self.step, self._update_rms()
        self._note_checkpoint(wait)
        return path

    def _note_checkpoint(self, wait: bool = True) -> None:
        """Log the checkpoint that has become complete, if there is one."""
        if path := self.writer.finish(wait):
            step = self.saved_step or 0
            temporary = not self.config.train.is_regular(step)
            self.log.append("checkpoint", step=step, folder=path.name, temporary=temporary, **self._updates)

    def _update_rms(self) -> dict[str, dict[str, float]]:
        """RMS of every parameter's last update before clipping: too much for every step, cheap at checkpoints."""
        optimizer = self.engine.optimizer
        return {"update_rms": optimizer.update_rms} if isinstance(optimizer, Adafactor) else {}


def rows_hash(rows: RowBatch | RowPlan) -> str:
    """Identity of a step's rows: which examples lie on which row, in order."""
    digest = blake2b(digest_size=8)
    for part in (rows.row_ids, rows.example_rows, rows.example_tasks, rows.example_ids):
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()


def start_run(
    config: RunConfig, stream: RowStream, resume: str, world: World, force_new_mixture: bool, say: Say
) -> Run:
    """Begin a run, or bring one back to its newest whole checkpoint. The first process holds the run folder's lock.

    Raises:
        UserError: nothing to resume, another run's checkpoint, a vocabulary that the model has no rows for, links to
            other folders where checkpoints are written.
    """
    folder = run_folder(config)
    point = world.from_first(lambda: _find_point(config, stream, folder, resume, force_new_mixture, say))
    architecture, load = _continuing(point) if point else _beginning(config, stream.vocabulary, world, say)
    engine = build_engine(build_model(config, stream, architecture, world), config, world)
    if config.train.probe_memory:
        probe_memory(engine, config)
    state = engine.state()
    load(state)
    engine.load_state(state)
    log = EventLog(folder / "events.jsonl", is_open=world.is_first)
    if world.is_first:
        _write_beginnings(config, stream, folder, point, log, say)
        _say_what_stays(config, state, say)
    checkpoint = config.train.checkpoint
    step = point.manifest.step if point else 0
    return Run(
        config,
        folder,
        stream,
        engine,
        CheckpointWriter(
            folder / CHECKPOINTS, checkpoint.keep, world, checkpoint.asynchronous, config.train.stays_every
        ),
        log,
        step,
        RowState(*point.manifest.rows) if point else RowState(),
        step if point and point.is_in(folder) else None,
        list(point.manifest.changes) if point else [],
    )


def _find_point(
    config: RunConfig, stream: RowStream, folder: Path, resume: str, force_new_mixture: bool, say: Say
) -> ResumePoint | None:
    refuse_linked_folders(folder, folder / CHECKPOINTS)
    remove_leftovers(folder, exclusive=True)
    remove_leftovers(folder / CHECKPOINTS, exclusive=True)
    point = find_resume_point(resume, folder, say)
    if point is None:
        return None
    accepted = accept(point, identity(config, stream), config.train.steps, force_new_mixture)
    say(f"continuing from step {accepted.manifest.step:,} ({accepted.path})")
    return accepted


def _write_beginnings(
    config: RunConfig, stream: RowStream, folder: Path, point: ResumePoint | None, log: EventLog, say: Say
) -> None:
    """The files of a run folder that are there before the first step."""
    for later in point.superseded if point else ():
        say(f"{later.name} of {folder} is now {set_aside(later).name}: the run continues from {point and point.path}.")
    make_folder(folder / CHECKPOINTS)
    prove_renames(folder / CHECKPOINTS)
    write_atomic(folder / "config.resolved.yaml", dump_config(config))
    changes = point.manifest.changes if point else []
    write_json(folder / "deviations.json", [deviation.as_dict() for deviation in deviations(config)] + changes)
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
        mixture=stream.mixture.hash,
        remarks=list(stream.mixture.remarks),
        probabilities=dict(zip(stream.task_names, stream.mixture.probabilities.tolist(), strict=True)),
    )


def _say_what_stays(config: RunConfig, state: State, say: Say) -> None:
    """Checkpoints that are never removed can fill a disk."""
    every = config.train.stays_every
    if every is None:
        return
    tensors = [*state["model"].values(), *(one for slots in state["optimizer"].values() for one in slots.values())]
    gigabytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e9
    number = len({*range(every, config.train.steps + 1, every), config.train.steps})
    why = "train.checkpoint.keep_every" if config.train.checkpoint.keep_every else "train.select compares them"
    say(f"{number} checkpoints of {gigabytes:.2g} GB will stay, {number * gigabytes:.2g} GB in all ({why})")


def build_model(config: RunConfig, stream: RowStream, architecture: T5Config, world: World) -> T5:
    """The model in training mode, without memory: it gets that, and weights, when processes share it.

    Raises:
        UserError: a vocabulary that the model has no rows for, a canary that sings.
    """
    check_vocabulary_size(stream.vocabulary, architecture)
    model = meta_model(architecture, config.model.attention).train()
    model.back_end(world.device, has_gradient=True)  # refused now rather than at the first step
    if config.train.canary:
        rows, _ = stream.take(RowState(), rows=_CANARY_ROWS)
        with precision(config.train, world.device):
            canary(_shallow(model, config.seed, world.device), rows)
    model.checkpoint_activations(config.train.activation_checkpointing)
    if config.train.compile:
        compile_blocks(model, world.device)
    return model


def _continuing(point: ResumePoint) -> tuple[T5Config, Callable[[State], None]]:
    """The architecture of a checkpoint's model, and what fills an engine's state with the checkpoint."""
    return read_architecture(point.path), partial(read_state, point.path)


def _beginning(
    config: RunConfig, vocabulary: Vocabulary, world: World, say: Say
) -> tuple[T5Config, Callable[[State], None]]:
    """The architecture of the model that a run starts from, and what fills an engine's state with its weights."""
    if config.model.start != "random":
        world.from_first(lambda: find_weights(config.model.start))  # from the hub once; the others find it in the cache
    start = open_start(config)
    found = {"architecture": asdict(start.config), "folder": start.report and start.report.source.name}
    require_agreement(world, {f"model.start ({key})": value for key, value in found.items()})
    if start.report:
        check_vocabulary(start.report.source, vocabulary)
        say(f"weights: {start.report}")

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
