"""Reports on run folders: tables and figures as Markdown and as one HTML page. Never imports torch."""

from t0train.report.card import TrainedDataset, card_header, card_text
from t0train.report.run_data import RunData, read_run, read_runs
from t0train.report.sections.accuracy import Headline, headlines
from t0train.report.write import Report, build_report, write_report

__all__ = [
    "Headline",
    "Report",
    "RunData",
    "TrainedDataset",
    "build_report",
    "card_header",
    "card_text",
    "headlines",
    "read_run",
    "read_runs",
    "write_report",
]
