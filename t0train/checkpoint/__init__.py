"""Reading checkpoints, also those of strangers: nothing in a checkpoint is executed, whatever it holds."""

from t0train.checkpoint.manifest import (
    LATEST,
    MANIFEST,
    MODEL,
    STATE,
    Manifest,
    is_temporary,
    list_checkpoints,
    read_manifest,
    step_of,
)
from t0train.checkpoint.state import explain_dcp_errors, first_non_finite, read_state

__all__ = [
    "LATEST",
    "MANIFEST",
    "MODEL",
    "STATE",
    "Manifest",
    "explain_dcp_errors",
    "first_non_finite",
    "is_temporary",
    "list_checkpoints",
    "read_manifest",
    "read_state",
    "step_of",
]
