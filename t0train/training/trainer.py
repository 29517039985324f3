"""The training loop: rows in, gradients, checks, update. Everything else that happens in a run is a callback."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from t0train.config import RunConfig
from t0train.core.hashing import derive_seed
from t0train.core.processes import StopRequest
from t0train.core.run_folder import RunFolder
from t0train.data import LoaderState, PackedLoader, RowBatch, RowPlan
from t0train.distributed import Engine
from t0train.optim import learning_rate
from t0train.training.gpu_memory import explain_out_of_memory
from t0train.training.step import Gradients, clip_factor, compute_gradients, refuse_non_finite


@dataclass
class TrainState:
    """Where a run is between two steps; with the engine's tensors, all that a continued run needs.

    Attributes:
        step: optimizer steps done.
        position: the next row of the loader.
        changes: deviations that were forced on the run on its way, as dictionaries.
    """

    step: int = 0
    position: LoaderState = field(default_factory=LoaderState)
    changes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class StepMetrics:
    """What one step did, as callbacks are given it.

    Attributes:
        plan: all rows of the step.
        gradients: losses and the gradient's norm.
        learning_rate: of this step.
        seconds: that the step took, without the wait for its rows.
        waited: seconds that the rows took to arrive.
    """

    plan: RowPlan
    gradients: Gradients
    learning_rate: float
    seconds: float
    waited: float


class Callback:
    """What happens in a run besides training. Every process has the same callbacks, in the same order.

    All methods are called in every process, so that they may communicate; what only one process does (write a file)
    a callback restricts to `trainer.world.is_first` itself.
    """

    def after_step(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Called after each step, when `trainer.state` is that of the step."""

    def is_due(self, trainer: Trainer) -> bool:
        """Whether something depends on this process's clock or files; if so in any process, `when_due` follows."""
        return False

    def when_due(self, trainer: Trainer) -> None:
        """Called in all processes after a step after which `is_due` was true in one of them."""

    def at_end(self, trainer: Trainer) -> None:
        """Called after the last step, or after the step at which a signal stops the run; not after an error."""


class Trainer:
    """A run in memory.

    Args:
        config: the run.
        folder: where it writes.
        loader: its rows.
        engine: model and optimizer, as the processes share them.
        state: where it begins or continues.
        callbacks: what else happens in the run, in this order.
        stop: set when a signal arrives.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        loader: PackedLoader,
        engine: Engine,
        state: TrainState,
        callbacks: Sequence[Callback] = (),
        stop: StopRequest | None = None,
    ) -> None:
        self.config, self.folder, self.loader, self.engine, self.state = config, folder, loader, engine, state
        self.world, self.callbacks = engine.world, list(callbacks)
        self.stop = StopRequest() if stop is None else stop
        self.is_stopped = False

    @property
    def is_done(self) -> bool:
        """Whether the run has all its steps."""
        return self.state.step >= self.config.train.steps

    def fit(self) -> None:
        """Train until the last step is done, or until a signal has come to one of the processes (`is_stopped`).

        Raises:
            NonFiniteError: before the optimizer step, so that the parameters stay those of the step before.
        """
        batch, shard = self.config.train.batch, (self.world.rank, self.world.size)
        batches = self.loader.batches(self.state.position, batch.rows, batch.examples, self.config.data.workers, shard)
        with closing(batches):
            while not self.is_done and not self.is_stopped:
                began = time.perf_counter()
                rows, plan = next(batches)
                metrics = self.step(rows, plan, waited=time.perf_counter() - began)
                for callback in self.callbacks:
                    callback.after_step(self, metrics)
                self._agree()
        for callback in self.callbacks:
            callback.at_end(self)

    def step(self, rows: RowBatch, plan: RowPlan, waited: float = 0.0) -> StepMetrics:
        """Take one optimizer step.

        Args:
            rows: the rows of this process.
            plan: all rows of the step.
            waited: seconds that the rows took to arrive.

        Raises:
            NonFiniteError: before the optimizer step, so that the parameters stay those of the step before.
        """
        began, config, index = time.perf_counter(), self.config, self.state.step
        with explain_out_of_memory(config, self.world, f"doing step {index + 1}"):
            gradients = compute_gradients(
                self.engine, rows, plan, config.train, derive_seed(config.seed, "dropout", index)
            )
            refuse_non_finite(gradients, rows, self.loader.task_names, index + 1, self.world)
            rate = learning_rate(config.optimizer, index, config.train.steps)
            self.engine.step(rate, clip_factor(gradients.norm, config.optimizer.max_grad_norm))
        self.state.step, self.state.position = index + 1, plan.after
        return StepMetrics(plan, gradients, rate, time.perf_counter() - began, waited)

    def _agree(self) -> None:
        """One message between the processes: which ranks received a stop signal, and what is due by whose clock."""
        flags = self.world.sum([bool(self.stop), *(callback.is_due(self) for callback in self.callbacks)])
        self.is_stopped = flags[0] > 0
        for callback, due in zip(self.callbacks, flags[1:], strict=True):
            if due and not self.is_stopped:
                callback.when_due(self)
