"""Bootstrap intervals over items of scores under several prompts, and differences of two models on the same items.

Every replicate draws items with replacement, the same ones for all prompts (and for both models), so what prompts and
models share cancels as it should. Intervals are the 2.5 and 97.5 percentiles of the replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t0train.core.seeds import generator

Interval = tuple[float, float]
Scored = tuple[NDArray[np.int64], NDArray[np.float64]]
"""What happened under one prompt: distinct items [n], e.g. row numbers, and the score of each [n]."""

RESAMPLES = 2000
_CELLS = 1 << 24  # item counts of one block of resamples: bounds memory, changes no result


@dataclass(frozen=True)
class Difference:
    """First model minus second: of their means over prompts, and of their medians over prompts."""

    items: int
    mean: float
    mean_interval: Interval
    median: float
    median_interval: Interval


def paired_difference(first: Sequence[Scored], second: Sequence[Scored], seed: int = 0) -> Difference:
    """Compare two models (or two datasets whose items correspond) by a paired bootstrap.

    Args:
        first: the scores under each prompt.
        second: likewise; equal item numbers mean the same item.
        seed: of the draws.
    """
    items, scores, covered = as_table([*first, *second])
    replicates = resample(scores, covered, seed)
    scores_of_prompts = scores.sum(axis=0) / covered.sum(axis=0)
    prompts = len(first)

    def difference(over_prompts: Callable[..., Any], of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(over_prompts(of[..., :prompts], axis=-1) - over_prompts(of[..., prompts:], axis=-1))

    return Difference(
        items=len(items),
        mean=float(difference(np.mean, scores_of_prompts)),
        mean_interval=interval(difference(np.nanmean, replicates)),
        median=float(difference(np.median, scores_of_prompts)),
        median_interval=interval(difference(np.nanmedian, replicates)),
    )


def as_table(prompts: Sequence[Scored]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """All items [items], their scores [items, prompts], and 1 where the prompt applies to the item [items, prompts]."""
    items = np.unique(np.concatenate([some for some, _ in prompts]))
    scores = np.zeros((len(items), len(prompts)))
    covered = np.zeros_like(scores)
    for column, (some, values) in enumerate(prompts):
        places = np.searchsorted(items, some)
        covered[places, column] = 1
        scores[places, column] = values
    return items, scores, covered


def resample(
    scores: NDArray[np.float64], covered: NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Mean scores of bootstrap replicates, [resamples, prompts].

    Args:
        scores: [items, prompts] score of the prompt's answer, 0 where the prompt does not apply.
        covered: [items, prompts] 1 where the prompt applies to the item.
        seed: of the draws.
        resamples: number of replicates.

    Returns:
        NaN where a replicate holds no item that the prompt applies to.
    """
    random = generator(seed, "bootstrap")
    number = len(scores)
    block = max(1, _CELLS // number)
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.integers(0, number, (size, number)) + np.arange(size)[:, None] * number
        counts = np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means.append((counts @ scores) / (counts @ covered))
    return np.concatenate(means)


def interval(replicates: NDArray[np.float64]) -> Interval:
    """The middle 95 % of some replicates."""
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)
