"""What is found for one dataset of a suite: figures of each prompt and over prompts, and columns of single items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from t0train.config.suite import Normalise
from t0train.core.bootstrap import Difference, Interval
from t0train.evals.statistics import AccuracySpread, PromptScore, PromptStatistics, Spread

_ITEM = [
    ("dataset", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("prompt", pa.string()),
    ("row", pa.int64()),  # of the split's slice
]
SCORES = pa.schema(
    [
        *_ITEM,
        ("scores", pa.list_(pa.float64())),  # sums of log-probabilities, whatever is compared
        ("prediction", pa.int32()),
        ("gold", pa.int32()),  # -1: the gold target is no choice
        ("right", pa.float64()),  # 1 or 0; BIG-bench: the target score of the prediction
    ]
)
GENERATIONS = pa.schema(
    [
        *_ITEM,
        ("output", pa.string()),
        ("references", pa.list_(pa.string())),
        ("score", pa.float64()),  # by the dataset's first metric
    ]
)


def _over_prompts(metrics: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and mean over the prompts that have a metric."""
    values: dict[str, list[float]] = {}
    for of_prompt in metrics:
        for name, value in of_prompt.items():
            values.setdefault(name, []).append(value)
    return {name: {"median": float(np.median(some)), "mean": float(np.mean(some))} for name, some in values.items()}


def _mean_baselines(baselines: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """By metric and baseline, the mean over the prompts that have the metric."""
    metrics = dict.fromkeys(metric for of_prompt in baselines for metric in of_prompt)
    return {
        metric: {
            name: values["mean"]
            for name, values in _over_prompts([one[metric] for one in baselines if metric in one]).items()
        }
        for metric in metrics
    }


@dataclass(frozen=True)
class PromptResult:
    """One prompt of a ranked dataset.

    Attributes:
        name: of the template; of the sub-task in BIG-bench.
        task: of dataset and prompt together.
        identity: hash of what is asked and how answers are judged, whichever of the rows were drawn: two results with
            the same one can be compared row by row.
        statistics: of its accuracy.
        metrics: further ones that the suite asks for.
        metric_intervals: 95 % bootstraps over rows of the further ones.
        metric_baselines: by metric, what `chance` (a uniform guess) and `majority` (the best constant answer) get.
        remarks: what is odd about its items, with their number: empty, cut or equal choices, rows left out.
    """

    name: str
    task: str
    identity: str
    statistics: PromptStatistics
    metrics: dict[str, float] = field(default_factory=dict)
    metric_intervals: dict[str, Interval] = field(default_factory=dict)
    metric_baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        numbers = asdict(self.statistics)
        names = {"name": self.name, "task": self.task, "identity": self.identity}
        further = {
            "metrics": self.metrics,
            "metric_intervals": self.metric_intervals,
            "metric_baselines": self.metric_baselines,
        }
        return {**names, **numbers, **further, "remarks": self.remarks}


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, to look at. `gold` is None if the right one is no choice."""

    prompt: str
    row: int
    input: str
    answer: str
    gold: str | None


@dataclass(frozen=True)
class GeneratedPrompt:
    """One prompt of a generated dataset.

    Attributes:
        name: of the template.
        task: of dataset and prompt together.
        identity: as of a ranked prompt.
        score: by the first metric.
        metrics: all of them.
        constant_answer: the most frequent right answer, which takes no reading.
        metric_baselines: by metric, what that answer gets if it is given everywhere, as `constant`.
        remarks: as of a ranked prompt.
    """

    name: str
    task: str
    identity: str
    score: PromptScore
    metrics: dict[str, float]
    constant_answer: str
    metric_baselines: dict[str, dict[str, float]]
    remarks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = {"name": self.name, "task": self.task, "identity": self.identity}
        baseline = {"constant_answer": self.constant_answer, "metric_baselines": self.metric_baselines}
        return {**names, **asdict(self.score), "metrics": self.metrics, **baseline, "remarks": self.remarks}


@dataclass(frozen=True, kw_only=True)
class _OfDataset:
    """What ranked and generated datasets have in common.

    Attributes:
        dataset: its key.
        split: as the suite writes it.
        family: kind of task.
        revision: identity of its rows.
        prompts: each prompt.
        left_out: prompts left out, with the reason.
        caveat: what to know before reading anything into the figures.
    """

    dataset: str
    split: str
    family: str
    revision: str
    prompts: Sequence[PromptResult | GeneratedPrompt]
    left_out: dict[str, str]
    caveat: str = ""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Median and mean over prompts of every metric (of a ranked dataset: beside the accuracy)."""
        return _over_prompts([prompt.metrics for prompt in self.prompts])

    @property
    def metric_baselines(self) -> dict[str, dict[str, float]]:
        """Means over prompts of what guesses and constant answers get by these metrics."""
        return _mean_baselines([prompt.metric_baselines for prompt in self.prompts])

    def _common(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "split": self.split,
            "family": self.family,
            "revision": self.revision,
            "metrics": self.metrics,
            "metric_baselines": self.metric_baselines,
            "prompts": [prompt.as_dict() for prompt in self.prompts],
            "left_out": self.left_out,
            "caveat": self.caveat,
        }


@dataclass(frozen=True, kw_only=True)
class DatasetResult(_OfDataset):
    """All prompts of one ranked dataset and split.

    Attributes:
        spread: statistics over prompts.
        metric_intervals: 95 % bootstraps over rows of the medians over prompts of the further metrics.
        normalise: what is compared between choices, see `SuiteTask`.
        mistakes: some wrong answers under the prompt with the lowest accuracy.
    """

    prompts: Sequence[PromptResult]
    spread: AccuracySpread
    metric_intervals: dict[str, Interval] = field(default_factory=dict)
    normalise: Normalise = "sum"
    mistakes: tuple[Mistake, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **self._common(),
            "normalise": self.normalise,
            **asdict(self.spread),
            "metric_intervals": self.metric_intervals,
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
        }


@dataclass(frozen=True, kw_only=True)
class GeneratedResult(_OfDataset):
    """All prompts of one generated dataset and split; `spread` is that of the first metric, `metric`."""

    prompts: Sequence[GeneratedPrompt]
    metric: str
    spread: Spread

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**self._common(), "metric": self.metric, **asdict(self.spread)}


@dataclass(frozen=True)
class DifferenceResult:
    """The scores of one dataset minus those of another, row by row."""

    name: str
    of: str
    minus: str
    difference: Difference

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"name": self.name, "of": self.of, "minus": self.minus, **asdict(self.difference)}
