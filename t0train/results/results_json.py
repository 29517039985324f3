"""The records of evaluation files: results.json, selection.json and leaks.json.

Evaluation writes these classes; reports, the command line and model cards read the same ones.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated, Literal

from pydantic import Field

from t0train.config.suite import Normalise
from t0train.results.record import (
    MOST,
    SCHEMA_VERSION,
    AtLeastOne,
    Count,
    Interval,
    Many,
    Points,
    Record,
    Share,
    Version,
)


class OverPrompts(Record):
    """A metric over the prompts of a dataset."""

    median: Share
    mean: Share


class Spread(Record):
    """A score over all prompts of one dataset.

    `interval` and `mean_interval` belong to the median and to the mean over prompts. Every bootstrap replicate draws
    records with replacement, the same ones for all prompts, and takes the median (mean) of the prompts' scores on
    them.
    """

    records: Count
    median: Share
    interval: Interval
    iqr: Interval
    mean: Share
    mean_interval: Interval
    min: Share
    max: Share


class AccuracySpread(Spread):
    """The accuracy over all prompts of one ranked dataset. `chance` and `majority` are means over prompts."""

    chance: Share
    majority: Share


class MeanScore(Record):
    """The mean score of one prompt, with its 95 % bootstrap interval over records."""

    records: Count
    score: Share
    interval: Interval


class Accuracy(Record):
    """One prompt. `chance` is the expected accuracy of a uniform guess, `majority` that of the best constant answer."""

    records: Count
    accuracy: Share
    interval: Interval
    chance: Share
    majority: Share
    gold_not_in_choices: Count


class PromptFacts(Record):
    """What ranked and generated prompts have in common.

    Attributes:
        name: of the template; of the sub-task in BIG-bench.
        task: of dataset and prompt together.
        identity: hash of the inputs and of how answers are judged, whichever of the records were drawn: two results
            with the same one can be compared record by record.
        metrics: of a ranked prompt those in addition to accuracy, of a generated one all.
        metric_baselines: by metric, what it takes no model to get: `chance` (a uniform guess), `majority` (the best
            constant choice) or `constant` (the most frequent right answer).
        remarks: what is odd about its items, with their number: empty, cut or equal choices, records left out.
    """

    name: str
    task: str
    identity: str = ""
    metrics: dict[str, Share] = Field({})
    metric_baselines: dict[str, dict[str, Share]] = Field({})
    remarks: dict[str, Count] = Field({})


class RankedPromptScore(PromptFacts, Accuracy):
    """One prompt of a ranked dataset; `metric_intervals` are 95 % bootstraps over records of its further metrics."""

    metric_intervals: dict[str, Interval] = Field({})


class GeneratedPromptScore(PromptFacts, MeanScore):
    """One prompt of a generated dataset, its score by the first metric.

    `constant_answer` is the most frequent right answer, which takes no reading.
    """

    constant_answer: str = ""


class Mistake(Record):
    """A wrong answer, to look at. `gold` is None if the right one is no choice."""

    prompt: str
    record: Count
    input: str
    answer: str
    gold: str | None


class DatasetFacts(Record):
    """What ranked and generated datasets have in common.

    Attributes:
        dataset: its key.
        split: as the suite writes it.
        family: kind of task.
        revision: identity of its records.
        metrics: over prompts (of a ranked dataset: those in addition to accuracy).
        metric_baselines: means over prompts of what guesses and constant answers get by these metrics.
        left_out: prompts left out, with the reason.
        caveat: what to know before reading anything into the figures.
    """

    dataset: str
    split: str
    family: str = ""
    revision: str = ""
    metrics: dict[str, OverPrompts] = Field({})
    metric_baselines: dict[str, dict[str, Share]] = Field({})
    left_out: dict[str, str] = Field({})
    caveat: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and split."""
        return self.dataset, self.split


class RankedScore(DatasetFacts, AccuracySpread):
    """All prompts of one ranked dataset and split.

    Attributes:
        normalise: what is compared between choices, see `SuiteTask`.
        metric_intervals: 95 % bootstraps over records of the medians over prompts of the further metrics.
        prompts: each prompt.
        mistakes: some wrong answers under the prompt with the lowest accuracy.
    """

    normalise: Normalise = "sum"
    metric_intervals: dict[str, Interval] = Field({})
    prompts: AtLeastOne[RankedPromptScore]
    mistakes: Many[Mistake] = ()


class GeneratedScore(DatasetFacts, Spread):
    """All prompts of one generated dataset and split; the figures are those of the first metric, `metric`."""

    metric: str
    prompts: AtLeastOne[GeneratedPromptScore]


class Difference(Record):
    """First model (or dataset) minus second: of their means over prompts, and of their medians over prompts."""

    items: Count
    mean: Points
    mean_interval: Interval
    median: Points
    median_interval: Interval


class DatasetDifference(Difference):
    """The scores of dataset `of` minus those of dataset `minus`, record by record."""

    name: str
    of: str
    minus: str


class ProbeAnswer(Record):
    """A prompt that is not scored, and what the model writes."""

    name: str
    input: str
    output: str


class Missing(Record):
    """A dataset of the suite that was not scored, and why."""

    dataset: str
    split: str
    reason: str


class NotHeldOut(Record):
    """What a model's training shares with a dataset: its records, others of the dataset, or the family of tasks."""

    kind: Literal["records", "dataset", "family"]
    sentence: str


class EvaluatedModel(Record):
    """What was evaluated.

    Attributes:
        name: of the run, else the folder or hub id as given.
        run: identity of the run's configuration; None for an exported folder or a hub id.
        step: of the checkpoint; 0 untrained; None as above.
        checkpoint: SHA-256 of the checkpoint's manifest; None if the model is of none.
        weights: fingerprint of the weights; empty if they were not fingerprinted.
        untrained: the run's model as it was before step 1.
        selected: the checkpoint is the selected one of its run.
    """

    name: str = "a model"
    run: str | None = None
    step: Count | None = None
    checkpoint: str | None = None
    weights: str = ""
    untrained: bool = False
    selected: bool = False


class EvalResults(Record):
    """A model on a suite: results.json.

    Attributes:
        schema_version: of this layout.
        model: what was evaluated.
        suite: name of the suite.
        source: where the records came from.
        limit: records scored at most per dataset, in addition to the suite's own limits; None for no limit.
        seed: of the drawn records, the drawn prompts and the bootstrap.
        tasks: one entry per ranked dataset and split.
        generated: one entry per generated dataset and split.
        differences: between datasets, as the suite asks for.
        probes: prompts that are not scored.
        missing: datasets of the suite that could not be scored.
        not_held_out: what the model's training shares with datasets of the suite; None if its training is not known.
        files: SHA-256 of the Parquet files with every item's scores and every text, by name.
    """

    schema_version: Version = SCHEMA_VERSION
    model: EvaluatedModel
    suite: str
    source: str
    limit: Count | None = None
    seed: Annotated[int, Field(ge=-MOST, le=MOST)]
    tasks: Many[RankedScore]
    generated: Many[GeneratedScore] = ()
    differences: Many[DatasetDifference] = ()
    probes: Many[ProbeAnswer] = ()
    missing: Many[Missing] = ()
    not_held_out: dict[str, NotHeldOut] | None = None
    files: dict[str, str] = Field({})

    @property
    def scored(self) -> tuple[RankedScore | GeneratedScore, ...]:
        """The entries of all datasets, ranked and generated."""
        return (*self.tasks, *self.generated)

    @property
    def caveats(self) -> dict[str, list[str]]:
        """The datasets that each caveat belongs to."""
        found: dict[str, list[str]] = {}
        for entry in self.scored:
            if entry.caveat:
                found.setdefault(entry.caveat, []).append(entry.dataset)
        return found

    @property
    def datasets(self) -> frozenset[tuple[str, str]]:
        """Dataset and split of each entry."""
        return frozenset(entry.key for entry in self.scored)

    def is_fuller(self, datasets: Set[tuple[str, str]], limit: int | None) -> bool:
        """Whether something would be lost if results of these datasets and records took their place."""
        return not self.datasets <= datasets or self.has_more_records(limit)

    def has_more_records(self, limit: int | None) -> bool:
        """Whether more records were scored than `limit` allows."""
        return limit is not None and (self.limit is None or self.limit > limit)


class Candidate(Record):
    """A checkpoint: its score, and the median over prompts of each dataset.

    A dataset that the suite lists more than once has a median for each of its splits and kinds.
    """

    step: Count
    score: Share
    medians: dict[str, Share]


class Selection(Record):
    """Which checkpoints of a run were compared, and the result: selection.json.

    Attributes:
        schema_version: of this layout.
        suite: its name.
        step: of the best checkpoint.
        source: where the records came from.
        limit: records scored at most per dataset, in addition to the suite's own limits; None for no limit.
        seed: of the drawn records and prompts.
        candidates: all, the earliest first.
        left_out: datasets of the suite that do not count, with the reason.
        rule: how the best one is found.
        absent: steps whose checkpoints the run's configuration keeps for good, and which are not there.
    """

    schema_version: Version = SCHEMA_VERSION
    suite: str
    step: Count
    source: str = ""
    limit: Count | None = None
    seed: int = 0
    candidates: AtLeastOne[Candidate]
    left_out: dict[str, str]
    rule: str
    absent: Many[Count] = ()

    @property
    def absence(self) -> str:
        """A sentence on the absent ones."""
        return f"not compared, as their checkpoints are gone: steps {', '.join(map(str, self.absent))}"


class SharedText(Record):
    """An n-gram that a scored record shares with a training record; records count from 0 in their splits."""

    record: Count
    share: Share
    words: str
    trained_dataset: str
    trained_record: Count


class Overlap(Record):
    """What the records of one dataset of a suite share with the training records.

    Attributes:
        dataset: key of the scored dataset.
        split: its split, as the suite writes it.
        records: records that were compared, those too short included.
        short: records whose texts have no n-gram; they are excluded from the other counts.
        touched: records with at least one n-gram in a training record.
        overlapping: records with at least the threshold's share of their n-grams in training records.
        sources: number of touched records by training dataset.
        examples: the records with the largest shares.
    """

    dataset: str
    split: str
    records: Count
    short: Count
    touched: Count
    overlapping: Count
    sources: dict[str, Count]
    examples: Many[SharedText]


class OverlapReport(Record):
    """The datasets of a suite compared with the training records: leaks.json.

    Attributes:
        schema_version: of this layout.
        mixture: hash of what is trained on.
        ngram: words of an n-gram.
        threshold: share of its n-grams from which on a record counts as overlapping.
        overlaps: the datasets that were compared.
        not_compared: those whose texts are not there, on either side, with the reason.
    """

    schema_version: Version = SCHEMA_VERSION
    mixture: str
    ngram: Count
    threshold: Share
    overlaps: Many[Overlap]
    not_compared: dict[str, str]
