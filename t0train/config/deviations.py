"""How a run differs from T0 as trained in 2021, and from the run that a checkpoint is of.

The schema's defaults are the reference preset. The keys that matter to what is learned, and the seed, make a run the
same run: they tell whether a checkpoint, a result or a continued run belongs to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import PurePath
from typing import Any, NamedTuple

from pydantic import BaseModel

from t0train.config.schema import RunConfig
from t0train.config.values import leaf_fields
from t0train.core.hashing import content_hash


@dataclass(frozen=True)
class Deviation:
    """One key that differs from the reference preset."""

    key: str
    value: Any
    reference: Any
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class Leaf(NamedTuple):
    """A key of a configuration with its value.

    Attributes:
        key: dotted.
        value: of this configuration.
        description: what the key means.
        is_recipe: whether it matters to what is learned.
    """

    key: str
    value: Any
    description: str
    is_recipe: bool


def flatten(config: BaseModel) -> Iterator[Leaf]:
    """Every key of a configuration, without sections."""
    for key, field in leaf_fields(type(config)):
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        yield Leaf(key, attrgetter(key)(config), field.description or "", extra.get("recipe") is not False)


def deviations(config: RunConfig) -> list[Deviation]:
    """Every recipe key whose value differs from T0's, with a sentence for the report and the model card."""
    return [
        Deviation(one.key, one.value, t0.value, _sentence(one.key, one.value, t0.value, one.description))
        for one, t0 in zip(flatten(config), flatten(RunConfig()), strict=True)
        if one.is_recipe and one.value != t0.value
    ]


def _sentence(key: str, value: Any, reference: Any, description: str) -> str:
    return f"{key} is {_shown(value)} where T0 has {_shown(reference)} ({description})."


def _shown(value: Any) -> str:
    """A value as YAML would have it on one line; what is empty by name."""
    if value in (None, "", [], {}):
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


VOCABULARY = "vocabulary (fingerprint)"
MIXTURE = "mixture (content hash)"
STORE = "token store (content hash)"
_FILES = ("data.vocabulary", "data.catalogue", "data.templates")  # they may move; content hashes represent them


def kept_keys(config: RunConfig) -> dict[str, Any]:
    """What every checkpoint of a run has in common with its configuration, by key: recipe and seed, as JSON values.

    `train.steps` is part of it only where the learning rate depends on it; otherwise a run may be made longer.
    """
    kept = {leaf.key: leaf.value for leaf in flatten(config) if leaf.is_recipe and leaf.key not in _FILES}
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
