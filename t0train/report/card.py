"""What a model card says on a run: data, mixture, recipe, deviations from T0, results with their caveats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from t0train.config import deviations as from_t0
from t0train.config import load_config
from t0train.core.run_folder import RunFolder
from t0train.report.elements import Part, Picture, Section, Sentences, Table
from t0train.report.render import markdown_sections
from t0train.report.run_data import RunData, read_run, suites
from t0train.report.sections.accuracy import accuracy, every_prompt
from t0train.report.sections.configuration import deviations
from t0train.report.sections.findings import findings
from t0train.report.sections.published import published_beside
from t0train.results import EvalResults

_NOT_FOR_CARDS = {"Mistakes under the worst prompts"}


def card_header(run: Path, hub_ids: Sequence[str]) -> str:
    """Lines for the YAML header that the hub reads.

    Args:
        run: run folder.
        hub_ids: repositories that the training rows come from.
    """
    start = read_run(run).recipe.model.init_from or "random"
    entries: dict[str, Any] = {"language": "en", "tags": ["t5", "t0", "zero-shot", "multitask-prompted-training"]}
    if start.count("/") == 1 and not start.startswith((".", "/", "~")):
        entries["base_model"] = start
    if hub_ids:
        entries["datasets"] = sorted(set(hub_ids))
    text: str = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    return text


def card_text(run: Path, step: int, mixture: Sequence[Mapping[str, Any]], weights: str = "") -> str:
    """The part of the card that a run folder tells, as Markdown.

    Args:
        run: run folder.
        step: of the checkpoint that is exported; results of other checkpoints are left out.
        mixture: a row for each training dataset: its key `dataset`, `templates` and `probability`; empty if unknown.
        weights: fingerprint of the weights that are exported; results of others are left out. Empty if unknown.

    Raises:
        UserError: not a run folder, or a damaged file in it.
    """
    found = read_run(run, step)
    of_step = {suite: results for suite, results in found.results.items() if results.model.step == step}
    own = {suite: results for suite, results in of_step.items() if _are_of(results, weights)}
    if found.deviations is None:  # a run folder that was put together by hand
        resolved = load_config(RunFolder(run).config)
        found = replace(found, deviations=tuple(deviation.sentence for deviation in from_t0(resolved)))
    scored = replace(found, results=own)
    sections = [
        Section("Training data", _data(scored, mixture)),
        Section("Training", [_recipe(scored, step)]),
        Section("Differences from T0's training", deviations(scored, [scored])),
        Section(
            "Results", _without_pictures(accuracy([scored])) if suites([scored]) else [_not_evaluated(found, step)]
        ),
        Section("Beside published results", published_beside([scored])),
        *(section for section in findings([scored]) if section.title not in _NOT_FOR_CARDS),
        Section("Every prompt", every_prompt([scored]) if suites([scored]) else []),
    ]
    return markdown_sections([section for section in sections if section.parts])


def _are_of(results: EvalResults, weights: str) -> bool:
    return not weights or results.model.weights in ("", weights)


def _data(run: RunData, mixture: Sequence[Mapping[str, Any]]) -> list[Part]:
    name, starts = run.recipe.mixture.name, run.starts
    lines = [f"Mixture {name}, hash {starts[-1].mixture}." if starts and starts[-1].mixture else f"Mixture {name}."]
    lines += [f"{remark}." for event in starts for remark in event.remarks]
    parts: list[Part] = [Sentences(lines)]
    if mixture:
        rows = [
            (str(row["dataset"]), f"{row['templates']}", f"{100 * row['probability']:.2f}")
            for row in sorted(mixture, key=lambda row: -row["probability"])
        ]
        parts.append(
            Table(("dataset", "prompts", "share of examples in %"), rows, folded=len(rows) > 12, title="Mixture")
        )
    return parts


def _recipe(run: RunData, step: int) -> Table:
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
    return Table(("", ""), [(key, str(value)) for key, value in rows], names=2)


def _not_evaluated(run: RunData, step: int) -> Sentences:
    others = sorted(run.results)
    elsewhere = f" Other checkpoints of the run were, on {', '.join(others)}." if others else ""
    return Sentences([f"The checkpoint of step {step:,} was not evaluated.{elsewhere}"])


def _without_pictures(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if not isinstance(part, Picture)]
