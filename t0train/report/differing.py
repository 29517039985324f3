"""In which keys the configurations of several runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t0train.report.parts import Part, Sentences, Table
from t0train.report.runs import Run
from t0train.report.scores import NOTHING

_NAMES = {"name", "output"}  # they differ anyway
_MOST = 30


def differing_keys(runs: Sequence[Run]) -> list[Part]:
    """A table of the keys whose values are not the same in all runs; nothing for a single run."""
    if len(runs) < 2:
        return []
    values = [dict(_leaves(run.config)) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in values for key in one) if key not in _NAMES]
    rows = [(key, *found) for key in keys if len(set(found := [one.get(key, NOTHING) for one in values])) > 1]
    if not rows:
        return [Sentences(["The configurations differ in no key but name and output."])]
    title = "Keys in which the configurations differ"
    parts: list[Part] = [Table(("key", *(run.name for run in runs)), rows[:_MOST], title=title, names=1 + len(runs))]
    if len(rows) > _MOST:
        parts.append(Sentences([f"{len(rows) - _MOST} further keys differ: see `t0train config diff`."]))
    return parts


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
