"""What a model card says on a run: data, mixture, recipe, deviations from T0, results with their caveats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from t0train.config import deviations as from_t0
from t0train.config import load_config
from t0train.core.run_folder import RunFolder
from t0train.report.page import PageSection, PageTable, Part, Picture, Sentences, markdown_sections
from t0train.report.run_data import RunData, read_run
from t0train.report.sections.accuracy import accuracy_section, every_prompt_section
from t0train.report.sections.answers import generated_section, probes_section
from t0train.report.sections.caveats import (
    caveats_section,
    missing_section,
    remarks_section,
    shared_texts_section,
)
from t0train.report.sections.comparison import checkpoints_section, dataset_differences_section
from t0train.report.sections.configuration import deviations_section
from t0train.report.sections.published import published_section
from t0train.results import EvalResults

_FINDINGS = (
    published_section,
    generated_section,
    dataset_differences_section,
    caveats_section,
    remarks_section,
    shared_texts_section,
    checkpoints_section,
    probes_section,
    missing_section,
)
"""Those sections of a report that a card has, too."""


class TrainedDataset(NamedTuple):
    """A dataset of the training mixture: its prompts, and the probability that an example is drawn from it."""

    dataset: str
    templates: int
    probability: float


class ModelCard(NamedTuple):
    """What a run folder contributes to a model card.

    Attributes:
        header: lines for the YAML header that the hub reads.
        text: sections, as Markdown.
    """

    header: str
    text: str


def build_card(
    run: Path, step: int, mixture: Sequence[TrainedDataset], hub_ids: Sequence[str] = (), weights: str = ""
) -> ModelCard:
    """The model card of a checkpoint.

    Args:
        run: run folder.
        step: of the checkpoint that is exported; results of other checkpoints are left out.
        mixture: the training datasets; empty if unknown.
        hub_ids: repositories that the training data come from.
        weights: fingerprint of the weights that are exported; results of others are left out. Empty if unknown.

    Raises:
        UserError: not a run folder, or a damaged file in it.
    """
    found = read_run(run, step)
    return ModelCard(_header(found, hub_ids), _text(found, step, mixture, weights))


def _header(run: RunData, hub_ids: Sequence[str]) -> str:
    start = run.recipe.model.init_from or "random"
    entries: dict[str, Any] = {"language": "en", "tags": ["t5", "t0", "zero-shot", "multitask-prompted-training"]}
    if start.count("/") == 1 and not start.startswith((".", "/", "~")):
        entries["base_model"] = start
    if hub_ids:
        entries["datasets"] = sorted(set(hub_ids))
    text: str = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    return text


def _text(found: RunData, step: int, mixture: Sequence[TrainedDataset], weights: str) -> str:
    of_step = {suite: results for suite, results in found.results.items() if results.model.step == step}
    own = {suite: results for suite, results in of_step.items() if _are_of(results, weights)}
    if found.deviations is None:  # a run folder that was put together by hand
        resolved = load_config(RunFolder(found.folder).config)
        found = replace(found, deviations=tuple(deviation.sentence for deviation in from_t0(resolved)))
    scored = replace(found, results=own)
    runs = [scored]
    sections = [
        PageSection("Training data", _data(scored, mixture)),
        PageSection("Training", [_recipe(scored, step)]),
        replace(deviations_section(runs), title="Differences from T0's training"),
        PageSection("Results", _accuracies(scored) if own else [_not_evaluated(found, step)]),
        *(build(runs) for build in _FINDINGS),
        *([every_prompt_section(runs)] if own else []),
    ]
    return markdown_sections([section for section in sections if section.parts])


def _are_of(results: EvalResults, weights: str) -> bool:
    return not weights or results.model.weights in ("", weights)


def _data(run: RunData, mixture: Sequence[TrainedDataset]) -> list[Part]:
    name, starts = run.recipe.mixture.name, run.starts
    lines = [f"Mixture {name}, hash {starts[-1].mixture}." if starts and starts[-1].mixture else f"Mixture {name}."]
    lines += [f"{remark}." for event in starts for remark in event.remarks]
    parts: list[Part] = [Sentences(lines)]
    if mixture:
        rows = [
            (one.dataset, f"{one.templates}", f"{100 * one.probability:.2f}")
            for one in sorted(mixture, key=lambda one: -one.probability)
        ]
        parts.append(
            PageTable(("dataset", "prompts", "share of examples in %"), rows, folded=len(rows) > 12, title="Mixture")
        )
    return parts


def _recipe(run: RunData, step: int) -> PageTable:
    """The keys of the recipe that matter most, and what was seen until the step."""
    recipe, steps = run.recipe, [event for event in run.steps if event.step <= step]
    model, data, train, optimizer = recipe.model, recipe.data, recipe.train, recipe.optimizer
    batch = train.batch
    rows = [
        ("starts from", f"random weights, {model.size}" if model.init_from == "random" else model.init_from),
        ("steps", f"{step:,} of {train.steps:,}"),
        ("a step", f"{batch.rows:,} packed rows" if batch.rows else f"{batch.examples} examples"),
        ("row", f"{data.max_inputs} input and {data.max_targets} target tokens"),
        ("optimizer", f"{optimizer.name}, learning rate {optimizer.lr}, {optimizer.schedule}"),
        ("dropout", f"{model.dropout}, {model.dropout_style}"),
        ("precision", f"{train.precision}"),
        ("seed", f"{recipe.seed}"),
        ("examples seen", f"{sum(event.examples for event in steps):,}"),
        ("target tokens seen", f"{sum(event.tokens for event in steps):,}"),
        ("configuration", run.config_hash),
    ]
    return PageTable(("", ""), [(key, str(value)) for key, value in rows], names=2)


def _not_evaluated(run: RunData, step: int) -> Sentences:
    others = sorted(run.results)
    elsewhere = f" Other checkpoints of the run were, on {', '.join(others)}." if others else ""
    return Sentences([f"The checkpoint of step {step:,} was not evaluated.{elsewhere}"])


def _accuracies(run: RunData) -> list[Part]:
    """The tables of the report's section, without its figures."""
    return [part for part in accuracy_section([run]).parts if not isinstance(part, Picture)]
