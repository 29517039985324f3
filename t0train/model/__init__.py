"""T5 on packed rows: module, attention backends, dropout styles, loss, weights and export."""

from t0train.config.architecture import SIZES, T5Config
from t0train.model.batch import Batch
from t0train.model.checks import check_packing, check_vocabulary, check_vocabulary_size
from t0train.model.compile import compile_blocks, graph_count
from t0train.model.huggingface import export_model, quiet_transformers, to_huggingface
from t0train.model.loss import LossOutput, loss, loss_denominator, token_scores
from t0train.model.run_checkpoint import RunCheckpoint, open_run_checkpoint, run_config_of
from t0train.model.t5 import T5
from t0train.model.weight_files import LoadReport, find_weights, is_hub_id
from t0train.model.weights import (
    Fill,
    InitialWeights,
    Weights,
    init_model,
    init_weights,
    initial_model,
    load_model,
    meta_model,
    open_initial_weights,
    open_weights,
)

__all__ = [
    "SIZES",
    "T5",
    "Batch",
    "Fill",
    "InitialWeights",
    "LoadReport",
    "LossOutput",
    "RunCheckpoint",
    "T5Config",
    "Weights",
    "check_packing",
    "check_vocabulary",
    "check_vocabulary_size",
    "compile_blocks",
    "export_model",
    "find_weights",
    "graph_count",
    "init_model",
    "init_weights",
    "initial_model",
    "is_hub_id",
    "load_model",
    "loss",
    "loss_denominator",
    "meta_model",
    "open_initial_weights",
    "open_run_checkpoint",
    "open_weights",
    "quiet_transformers",
    "run_config_of",
    "to_huggingface",
    "token_scores",
]
