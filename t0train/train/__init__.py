"""The training loop, checkpoints, and stopping and resuming without a trace."""

from t0train.config.resolve import run_folder
from t0train.train.loop import RunResult, train
from t0train.train.step import NonFiniteError

__all__ = ["NonFiniteError", "RunResult", "run_folder", "train"]
