"""T5 on packed rows: module, attention back ends, dropout styles, loss, loading and export."""

from t0train.config.architecture import SIZES, T5Config
from t0train.model.batch import Batch
from t0train.model.build import init_model, init_weights, meta_model
from t0train.model.canary import canary
from t0train.model.compiling import compile_blocks, graph_count
from t0train.model.export import export_model
from t0train.model.identity import (
    RunCheckpoint,
    check_vocabulary,
    check_vocabulary_size,
    open_run_checkpoint,
    run_config_of,
    run_folder_of,
)
from t0train.model.load import Weights, load_model, open_weights
from t0train.model.loss import LossOutput, loss, loss_denominator, token_scores
from t0train.model.start import Fill, Start, open_start, start_model
from t0train.model.t5 import T5
from t0train.model.weights import LoadReport, complete_checkpoints, find_weights, select_step, selected_step

__all__ = [
    "SIZES",
    "T5",
    "Batch",
    "Fill",
    "LoadReport",
    "LossOutput",
    "RunCheckpoint",
    "Start",
    "T5Config",
    "Weights",
    "canary",
    "check_vocabulary",
    "check_vocabulary_size",
    "compile_blocks",
    "complete_checkpoints",
    "export_model",
    "find_weights",
    "graph_count",
    "init_model",
    "init_weights",
    "load_model",
    "loss",
    "loss_denominator",
    "meta_model",
    "open_run_checkpoint",
    "open_start",
    "open_weights",
    "run_config_of",
    "run_folder_of",
    "select_step",
    "selected_step",
    "start_model",
    "token_scores",
]
