"""Run configurations: YAML with includes and overrides, checked, resolved, hashed, compared with T0's recipe."""

from t0train.config.deviations import Deviation, deviations, run_identity
from t0train.config.load import config_hash, dump_config, load_config, load_run, load_yaml, locate
from t0train.config.resolve import config_remarks
from t0train.config.schema import RunConfig
from t0train.config.suite import SuiteConfig, SuiteTask, load_suite

__all__ = [
    "Deviation",
    "RunConfig",
    "SuiteConfig",
    "SuiteTask",
    "config_hash",
    "config_remarks",
    "deviations",
    "dump_config",
    "load_config",
    "load_run",
    "load_suite",
    "load_yaml",
    "locate",
    "run_identity",
]
