"""Reports on run folders: tables and figures as Markdown and as one HTML page. Never imports torch."""

from t0train.report.card import ModelCard, TrainedDataset, build_card
from t0train.report.run_data import RunData, read_run, read_runs
from t0train.report.sections.accuracy import Headline, headlines
from t0train.report.write import Report, build_report, write_report

__all__ = [
    "Headline",
    "ModelCard",
    "Report",
    "RunData",
    "TrainedDataset",
    "build_card",
    "build_report",
    "headlines",
    "read_run",
    "read_runs",
    "write_report",
]
