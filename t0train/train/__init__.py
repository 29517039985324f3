"""The training loop, its callbacks, and stopping and resuming without a trace."""

from t0train.config.resolve import run_folder
from t0train.train.run import RunResult, train
from t0train.train.step import NonFiniteError
from t0train.train.trainer import Callback, StepMetrics, Trainer, TrainState

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
