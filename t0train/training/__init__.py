"""The training loop, its callbacks, and stopping and resuming without a trace."""

from t0train.config.resolve import run_folder
from t0train.training.run import RunResult, train
from t0train.training.step import NonFiniteError
from t0train.training.trainer import Callback, StepMetrics, Trainer, TrainState

__all__ = [
    "Callback",
    "NonFiniteError",
    "RunResult",
    "StepMetrics",
    "TrainState",
    "Trainer",
    "run_folder",
    "train",
]
