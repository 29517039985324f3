"""Results that others have published on T0's suites (published.csv), and how well each of them is known.

Values that were read in the source are shown as published; those that are only remembered are marked and must be looked
up before they are quoted.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_STANDING = {"yes": "as published", "second hand": "quoted second hand", "no": "recalled, not read"}


class Published(NamedTuple):
    """A model on a dataset, or on the difference of two datasets. Values are fractions of 1.

    Attributes:
        model: its name.
        dataset: key of the dataset.
        minus: key of the dataset that is subtracted; empty for none.
        metric: accuracy, or contains (the noun occurs in what the model writes).
        median: over prompts.
        mean: over prompts.
        prompts: how many, as far as known.
        standing: as published, quoted second hand, or recalled.
        source: where it stands.
        note: what to know about it.
    """

    model: str
    dataset: str
    minus: str
    metric: str
    median: float | None
    mean: float | None
    prompts: str
    standing: str
    source: str
    note: str


@lru_cache(maxsize=1)
def published_results() -> Sequence[Published]:
    """All of them, in the order of the file."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        # by source, too: what is remembered must not hide behind what was read elsewhere; and by the set of prompts
        key = tuple(row[name] for name in ("model", "dataset", "minus", "source", "prompts"))
        one = found.setdefault(key, dict(row, note=""))
        one[row["statistic"]] = row["value"]
        if row["note"] not in one["note"]:
            one["note"] = "; ".join(filter(None, [one["note"], row["note"]]))
    return [
        Published(
            model=row["model"],
            dataset=row["dataset"],
            minus=row["minus"],
            metric=row["metric"],
            median=float(row["median"]) / 100 if "median" in row else None,
            mean=float(row["mean"]) / 100 if "mean" in row else None,
            prompts=row["prompts"],
            standing=_STANDING[row["read"]],
            source=row["source"],
            note=row["note"],
        )
        for row in found.values()
    ]


def published_on(dataset: str, minus: str = "") -> list[Published]:
    """The published results on a dataset, or on the difference of two."""
    return [row for row in published_results() if (row.dataset, row.minus) == (dataset, minus)]
