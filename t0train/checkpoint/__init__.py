"""Checkpoints: their layout, writing them whole or not at all, and reading them, also those of strangers.

Nothing in a checkpoint is executed, whatever it holds.
"""

from t0train.checkpoint.manifest import (
    LATEST,
    MODEL,
    STATE,
    Manifest,
    is_temporary,
    read_manifest,
)
from t0train.checkpoint.reader import explain_dcp_errors, first_non_finite, read_state
from t0train.checkpoint.writer import CheckpointWriter, set_aside

__all__ = [
    "LATEST",
    "MODEL",
    "STATE",
    "CheckpointWriter",
    "Manifest",
    "explain_dcp_errors",
    "first_non_finite",
    "is_temporary",
    "read_manifest",
    "read_state",
    "set_aside",
]
