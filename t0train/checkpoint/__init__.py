"""Checkpoints: their layout, writing them whole or not at all, and reading them, also those of strangers.

Nothing in a checkpoint is executed, whatever it holds.
"""

from t0train.checkpoint.manifest import (
    LATEST,
    MANIFEST,
    MODEL,
    STATE,
    Manifest,
    checkpoint_name,
    is_temporary,
    list_checkpoints,
    read_manifest,
    step_of,
)
from t0train.checkpoint.reader import explain_dcp_errors, first_non_finite, read_state
from t0train.checkpoint.writer import CheckpointWriter, set_aside

__all__ = [
    "LATEST",
    "MANIFEST",
    "MODEL",
    "STATE",
    "CheckpointWriter",
    "Manifest",
    "checkpoint_name",
    "explain_dcp_errors",
    "first_non_finite",
    "is_temporary",
    "list_checkpoints",
    "read_manifest",
    "read_state",
    "set_aside",
    "step_of",
]
