"""What makes a run the same run: the keys by which checkpoints, results and continued runs are told from others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from t0train.config.deviations import flatten
from t0train.config.schema import RunConfig
from t0train.core.hashing import content_hash

VOCABULARY = "vocabulary (fingerprint)"
MIXTURE = "mixture (content hash)"
STORE = "token store (content hash)"
_FILES = ("data.vocabulary", "data.catalogue", "data.templates")  # they may move; content hashes stand for them


def kept_keys(config: RunConfig) -> dict[str, Any]:
    """What every checkpoint of a run has in common with its configuration, by key: recipe and seed, as JSON values.

    `train.steps` is part of it only where the learning rate depends on it; otherwise a run may be made longer.
    """
    kept = {key: value for key, value, _, is_recipe in flatten(config) if is_recipe and key not in _FILES}
    if config.optimizer.schedule != "linear":
        del kept["train.steps"]
    plain: dict[str, Any] = json.loads(json.dumps({**kept, "seed": config.seed}))
    return plain


def run_identity(config: RunConfig) -> str:
    """Hash of a run's recipe and seed: the same at each of its steps, however many there are, and wherever it lies.

    Keys with their default are left out, so that a later version's new keys do not change it.
    """
    own, defaults = kept_keys(config), kept_keys(RunConfig())
    changed = {key: _without_folder(own[key]) for key in differing_keys(defaults, own) if key in own}
    return content_hash({key: value for key, value in changed.items() if key != "train.steps"})


def differing_keys(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ or that only one side has. Of absolute paths only the last name counts."""
    return [key for key in sorted({*then, *now}) if _without_folder(then.get(key)) != _without_folder(now.get(key))]


def differing_from_checkpoint(identity: Mapping[str, Any], config: RunConfig) -> list[str]:
    """The keys in which a configuration is not the one that a checkpoint's `identity` was written by.

    A key that the checkpoint does not name, as it is younger, counts as having its default.
    """
    defaults = kept_keys(RunConfig.model_validate({"optimizer": {"schedule": config.optimizer.schedule}}))
    then = {key: identity.get(key, default) for key, default in defaults.items()}
    return differing_keys(then, kept_keys(config))


def _without_folder(value: Any) -> Any:
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
