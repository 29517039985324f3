"""What every run has: its event log, its checkpoints, and a progress bar."""

from __future__ import annotations

import time
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

from t0train.checkpoint import CheckpointWriter, Manifest
from t0train.config import config_hash
from t0train.core.console import Advance
from t0train.core.events import EventLog
from t0train.data import RowBatch, RowPlan
from t0train.model import graph_count
from t0train.optim import Adafactor
from t0train.training.gpu_memory import memory_facts
from t0train.training.resume import identity
from t0train.training.step import refuse_non_finite_state
from t0train.training.trainer import Callback, StepMetrics, Trainer


class EventLogger(Callback):
    """Appends every step to events.jsonl: what is the same in every repetition as `step`, the timing as `speed`."""

    def __init__(self, log: EventLog) -> None:
        self.log, self._is_memory_logged = log, False

    def after_step(self, trainer: Trainer, metrics: StepMetrics) -> None:  # noqa: D102
        self._log_step(trainer, metrics)
        self._log_speed(trainer, metrics)
        if trainer.world.device.type == "cuda" and not self._is_memory_logged:
            self.log.append("memory", step=trainer.state.step, **memory_facts(trainer.config, trainer.world))
            self._is_memory_logged = True

    def _log_step(self, trainer: Trainer, metrics: StepMetrics) -> None:
        plan, gradients, optimizer = metrics.plan, metrics.gradients, trainer.engine.optimizer
        tokens, (fill_inputs, fill_targets) = plan.target_tokens, plan.fill
        drawn = Counter(trainer.loader.task_names[task] for task in plan.example_tasks.tolist())
        self.log.append(
            "step",
            step=trainer.state.step,
            loss=gradients.loss,
            cross_entropy=gradients.cross_entropy / tokens,
            z_loss=gradients.z_loss / tokens,
            lr=metrics.learning_rate,
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

    def _log_speed(self, trainer: Trainer, metrics: StepMetrics) -> None:
        plan, seconds = metrics.plan, metrics.seconds + metrics.waited
        self.log.append(
            "speed",
            step=trainer.state.step,
            seconds=seconds,
            waited_for_rows=metrics.waited,
            rows_per_s=len(plan) / seconds,
            examples_per_s=len(plan.example_ids) / seconds,
            input_tokens_per_s=plan.input_tokens / seconds,
            target_tokens_per_s=plan.target_tokens / seconds,
            **({"graphs_compiled": graph_count()} if trainer.config.train.compile else {}),
        )


class Checkpointer(Callback):
    """Writes regular checkpoints, temporary ones by the clock (`train.checkpoint.minutes`), and the last one.

    Args:
        writer: writes them.
        log: notes each one that has become complete.
        saved_step: the step of the checkpoint that the run continues from, if it lies in the run folder.
    """

    def __init__(self, writer: CheckpointWriter, log: EventLog, saved_step: int | None) -> None:
        self.writer, self.log, self.saved_step = writer, log, saved_step
        self._saved_at = time.monotonic()  # or begun, where nothing is saved yet
        self._updates: dict[str, Any] = {}

    def after_step(self, trainer: Trainer, metrics: StepMetrics) -> None:  # noqa: D102
        self._note_complete(trainer, wait=False)
        if trainer.config.train.is_regular(trainer.state.step):
            self.save(trainer, wait=False)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether the clock of the first process says that a temporary checkpoint is due."""
        minutes = trainer.config.train.checkpoint.minutes
        if minutes is None or not trainer.world.is_first or self.writer.is_busy:
            return False
        return time.monotonic() - self._saved_at >= 60 * minutes

    def when_due(self, trainer: Trainer) -> None:  # noqa: D102
        self.save(trainer, wait=False)

    def at_end(self, trainer: Trainer) -> None:  # noqa: D102
        self.save(trainer)

    def save(self, trainer: Trainer, wait: bool = True) -> Path:
        """Write the checkpoint of this step, unless it is there; without `wait` perhaps in the background.

        It is a temporary one if `train.checkpoint` has none at this step.

        Raises:
            UserError: the disk is full or read-only; earlier checkpoints are as they were.
            NonFiniteError: a parameter or optimizer state is not finite in some process; nothing is written.
        """
        step = trainer.state.step
        if self.saved_step != step:
            self._note_complete(trainer)
            state = trainer.engine.state()
            refuse_non_finite_state(state, step, trainer.world)
            self.log.flush()  # the events up to a checkpoint are as safe as the checkpoint
            self._saved_at = time.monotonic()
            self.writer.start(state, trainer.engine.model.config, self._manifest(trainer))
            self.saved_step, self._updates = step, self._update_rms(trainer)
        self._note_complete(trainer, wait)
        return self.writer.path(step)

    def _manifest(self, trainer: Trainer) -> Manifest:
        config, state = trainer.config, trainer.state
        return Manifest(
            step=state.step,
            rows=(state.position.window, state.position.row),
            identity=identity(config, trainer.loader),
            config=config_hash(config),
            changes=state.changes,
            temporary=not config.train.is_regular(state.step),
        )

    def _note_complete(self, trainer: Trainer, wait: bool = True) -> None:
        """Log the checkpoint that has become complete, if there is one."""
        if path := self.writer.finish(wait):
            step = self.saved_step or 0
            temporary = not trainer.config.train.is_regular(step)
            self.log.append("checkpoint", step=step, folder=path.name, temporary=temporary, **self._updates)

    def _update_rms(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """RMS of every parameter's last update before clipping: too much for every step, cheap at checkpoints."""
        optimizer = trainer.engine.optimizer
        return {"update_rms": optimizer.update_rms} if isinstance(optimizer, Adafactor) else {}


class ProgressBar(Callback):
    """Shows how far the run is."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def after_step(self, trainer: Trainer, metrics: StepMetrics) -> None:  # noqa: D102
        self.advance(1, note=f"loss {metrics.gradients.loss:.4f}")


def rows_hash(rows: RowBatch | RowPlan) -> str:
    """Identity of a step's rows: which examples lie on which row, in order."""
    digest = blake2b(digest_size=8)
    for part in (rows.row_ids, rows.example_rows, rows.example_tasks, rows.example_ids):
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()
