"""Adafactor after Mesh TensorFlow, AdamW, and learning-rate schedules, the same under every strategy."""

from t0train.config.resolve import PRESETS, Preset
from t0train.optim.adafactor import Adafactor
from t0train.optim.optimizer import build_optimizer, learning_rate
from t0train.optim.state import load_optimizer_state, optimizer_state

__all__ = [
    "PRESETS",
    "Adafactor",
    "Preset",
    "build_optimizer",
    "learning_rate",
    "load_optimizer_state",
    "optimizer_state",
]
