"""Rank classification, generation, metrics, prompt statistics, suites."""

from t0train.evals.checkpoint_selection import select_checkpoint
from t0train.evals.eval_config import EvalConfig
from t0train.evals.evaluation import evaluate, evaluate_into, evaluate_model
from t0train.evals.generation import Generator
from t0train.evals.models import EvalModel, ModelReference, open_model
from t0train.evals.prediction_cache import fingerprint
from t0train.evals.rank import rank_choices, rank_tokens
from t0train.results import Selection
from t0train.results.results_folder import Results, check_folder
from t0train.results.statistics import paired_difference, summarise

__all__ = [
    "EvalConfig",
    "EvalModel",
    "Generator",
    "ModelReference",
    "Results",
    "Selection",
    "check_folder",
    "evaluate",
    "evaluate_into",
    "evaluate_model",
    "fingerprint",
    "open_model",
    "paired_difference",
    "rank_choices",
    "rank_tokens",
    "select_checkpoint",
    "summarise",
]
