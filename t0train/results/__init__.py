"""What evaluations find, as records that are written and read by the same classes, and how figures are computed."""

from t0train.results.record import Record, check_record, read_record
from t0train.results.results_json import EvalResults, EvaluatedModel, OverlapReport, Selection

__all__ = ["EvalResults", "EvaluatedModel", "OverlapReport", "Record", "Selection", "check_record", "read_record"]
