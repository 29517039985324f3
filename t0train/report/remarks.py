"""What is odd about the examples of prompts: it is no error, but a reader of the figures should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from t0train.report.parts import Part, Table
from t0train.report.runs import Run
from t0train.report.scores import suites

_PART = "applies to a part of the rows"
_NO_GOLD = "the right answer is no choice"
_CONSTANT = "the same choice is right everywhere"
_ALL_WRONG = "answered wrongly"


class Remark(NamedTuple):
    """One kind of remark on a dataset: under how many of its prompts, on how many examples, of how many."""

    dataset: str
    split: str
    text: str
    prompts: str
    examples: str


def prompt_remarks(runs: Sequence[Run]) -> list[Part]:
    """A table for each suite; a line holds for all the runs that it names."""
    parts: list[Part] = []
    for suite in suites(runs):
        found: dict[Remark, list[str]] = {}
        for run in runs:
            results = run.results.get(suite, {})
            for entry in (*results.get("tasks", ()), *results.get("generated", ())):
                for remark in dataset_remarks(entry):
                    found.setdefault(remark, []).append(run.name)
        if found:
            several = len(runs) > 1
            header = ("dataset", "split", *(["runs"] if several else []), "remark", "prompts", "examples of a prompt")
            rows = [
                (one.dataset, one.split, *([", ".join(names)] if several else []), one.text, one.prompts, one.examples)
                for one, names in found.items()
            ]
            parts.append(Table(header, rows, title=f"Suite {suite}", names=3 + several))
    return parts


def dataset_remarks(entry: Mapping[str, Any]) -> Iterator[Remark]:
    """The remarks on one dataset of a results file, each kind once."""
    counts: dict[str, list[tuple[int, int]]] = {}  # by remark: (number, of) for each prompt that it is about
    for prompt in entry["prompts"]:
        rows: int = prompt["rows"]
        if rows < entry["rows"]:
            counts.setdefault(_PART, []).append((rows, entry["rows"]))
        for text, number in {**_of_figures(prompt), **prompt.get("remarks", {})}.items():
            if number:
                counts.setdefault(text, []).append((number, rows))
    for text, numbers in counts.items():
        spans = (_span(part) for part in zip(*numbers, strict=True))
        prompts = f"{len(numbers)} of {len(entry['prompts'])}"
        yield Remark(entry["dataset"], entry["split"], text, prompts, " of ".join(spans))


def _of_figures(prompt: Mapping[str, Any]) -> dict[str, int]:
    """Why a figure of a ranked prompt is 0 or 100 %; nothing for a prompt whose answers are written."""
    rows, no_gold = prompt["rows"], prompt.get("gold_not_in_choices", 0)
    is_constant = rows > 1 and prompt.get("majority", 0) == 1
    is_all_wrong = no_gold < rows and prompt.get("accuracy") == 0
    return {_NO_GOLD: no_gold, _CONSTANT: rows * is_constant, _ALL_WRONG: rows * is_all_wrong}


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
