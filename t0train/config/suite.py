"""Evaluation suites as YAML: which datasets, splits and prompts a model is judged on, and by which measure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from t0train.config.load import load_yaml, locate
from t0train.config.paths import ConfigPath
from t0train.config.schema import MOST, MOST_PROMPTS, MOST_TOKENS, Name, Section, check_name
from t0train.core.run_folder import UNTRAINED

Metric = Literal["f1", "exact_match", "token_f1", "contains", "rouge1", "rouge2", "rougeL", "bleu"]
Normalise = Literal["sum", "mean_tokens", "mean_chars"]

OVERLAPS = "leaks.json"
"""File of what a suite's texts share with a run's training rows, in `RUN/eval/SUITE`."""


class SuiteTask(Section):
    """One dataset of a suite, with all the prompts that it is scored under."""

    dataset: str = Field(description="dataset, or dataset/config, e.g. super_glue/rte; the task of BIG-bench")
    kind: Literal["rank", "generate", "bigbench"] = Field(
        "rank",
        description="rank: templates with answer choices, the likeliest choice is the answer; generate: templates "
        "without, the model writes; bigbench: ranked, read from <source>/bigbench/<task>/task.json",
    )
    split: str = Field("validation", description="split, sliced if need be: test[:1000]; not for bigbench")
    prompts: Literal["all", "original", "one"] | Annotated[int, Field(ge=1, le=MOST_PROMPTS)] | list[str] = Field(
        "all",
        description="all templates of that kind, the original-task ones, the first, k of them, or their names; "
        "not for bigbench, whose tasks bring their own",
    )
    normalise: Normalise = Field(
        "sum",
        description="rank and bigbench: what is compared between choices: sum of the log-probabilities of a choice's "
        "tokens (the original), or that sum divided by its tokens (EOS included) or by its characters",
    )
    limit: int | None = Field(
        None, ge=1, le=MOST, description="score this many records, drawn with a fixed seed; empty: all"
    )
    metrics: list[Metric] = Field(
        [],
        description="rank: f1 in addition to accuracy; generate: any of the others, the first with intervals",
    )
    references: str = Field(
        "", description="generate: column (dotted) with all right answers, in addition to the template's own target"
    )
    max_new_tokens: int = Field(256, ge=1, le=MOST_TOKENS, description="generate: longest answer")
    caveat: str = Field("", description="what to know before interpreting the score; shown with it")

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> SuiteTask:
        of_others = {
            "rank": {"references", "max_new_tokens"},
            "generate": {"normalise"},
            "bigbench": {"split", "prompts", "metrics", "references", "max_new_tokens"},
        }[self.kind]
        defaults = {key: type(self).model_fields[key].default for key in of_others}
        if wrong := sorted(key for key in of_others if getattr(self, key) != defaults[key]):  # a dump has the defaults
            raise ValueError(f"{self.dataset}: {', '.join(wrong)} has no meaning with kind: {self.kind}")
        if self.kind == "bigbench":
            self._check_bigbench_name()
        if self.kind == "rank" and set(self.metrics) - {"f1"}:
            raise ValueError(f"{self.dataset}: kind: rank gives the accuracy; the only further metric is f1")
        if self.kind == "generate" and (not self.metrics or "f1" in self.metrics or self.metrics[0] == "bleu"):
            raise ValueError(
                f"{self.dataset}: kind: generate needs metrics; the first must score single answers (not bleu, which "
                "scores all of them together), and words are compared by token_f1, not f1"
            )
        return self

    def _check_bigbench_name(self) -> None:
        try:
            check_name(self.dataset)
        except ValueError as error:
            raise ValueError(f"{self.dataset[:100]!r} is no task of BIG-bench. {error}") from error


class DifferenceConfig(Section):
    """Two datasets of the suite whose rows correspond, one subtracted from the other."""

    name: str = Field(description="what the difference is called in results and reports")
    of: str = Field(description="dataset key, e.g. wino_bias/type1_pro")
    minus: str = Field(description="dataset key, e.g. wino_bias/type1_anti")


class Probe(Section):
    """A prompt whose answer is shown and not scored."""

    name: str = Field(description="what the prompt is called in results and reports")
    input: str = Field(description="what the model reads")


class SuiteConfig(Section):
    """A named list of evaluation tasks."""

    name: Name = Field(description="names the folder of the results; must not end in -untrained")
    tasks: list[SuiteTask] = Field([], description="what is scored")
    differences: list[DifferenceConfig] = Field([], description="differences between datasets of the suite")
    probes: list[Probe] = Field([], description="prompts whose answers are shown and not scored")
    data: Annotated[str, ConfigPath(words=("hub",))] = Field(
        "", description="where the records come from; empty: the run's data.source"
    )
    catalogue: Annotated[str, ConfigPath()] = Field(
        "", description="CSV file with further datasets; empty: the run's data.catalogue"
    )
    templates: list[Annotated[str, ConfigPath()]] = Field(
        [], description="folders with further templates; empty: the run's data.templates"
    )
    allow_empty_targets: bool = Field(False, description="score prompts under which no answer can be right, too")

    @model_validator(mode="after")
    def _consistent(self) -> SuiteConfig:
        if self.name.endswith(UNTRAINED):
            raise ValueError(f"name: {self.name!r} ends in {UNTRAINED!r}, as results of models before training do")
        if not self.tasks and not self.probes:
            raise ValueError("a suite needs tasks or probes")
        entries = [(task.dataset, task.split, task.kind) for task in self.tasks]
        for dataset, split, kind in sorted({entry for entry in entries if entries.count(entry) > 1}):
            where = "" if kind == "bigbench" else f", split: {split}"
            raise ValueError(
                f"tasks: dataset: {dataset}{where}, kind: {kind} is listed {entries.count((dataset, split, kind))} "
                "times; name all its prompts in one entry"
            )
        keys = [task.dataset for task in self.tasks if task.kind != "bigbench"]
        for difference in self.differences:
            for key in (difference.of, difference.minus):
                if keys.count(key) != 1:
                    raise ValueError(
                        f"differences: {key!r} is listed {keys.count(key)} times in the suite, but must be listed once"
                    )
        return self


def load_suite(name_or_path: str, overrides: tuple[str, ...] = ()) -> SuiteConfig:
    """The suite of that name in configs/evals/, or in a YAML file.

    Raises:
        UserError: no such suite, unknown keys, wrong types.
    """
    return load_yaml(SuiteConfig, "evals", locate("evals", name_or_path), overrides)
