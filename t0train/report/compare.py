"""Runs beside each other: differences from the first one, on the same rows under the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from t0train.core.run_folder import RunFolder
from t0train.report.items import Items, paired, read_items
from t0train.report.parts import Part, Sentences, Table
from t0train.report.runs import Run
from t0train.report.scores import suites, with_interval

_HEADER = ("dataset", "split", "run", "prompts", "rows", "median", "mean", "median: 0 outside")
_EXPLAINED = (
    "Differences in points; brackets hold 95 % intervals of a paired bootstrap: every replicate draws rows, the same "
    "ones for both runs and all prompts. They say how sure the difference is for these prompts and these trained "
    "weights, not for another training seed. The last column is about the interval of the median alone, whatever that "
    "of the mean holds. Every interval is for its dataset alone, nothing is corrected for their number: where two runs "
    "are alike on all of twenty datasets, expect 0 to be outside for one of them."
)

_UNNAMED = "results of an earlier version do not say which files hold their scores: evaluate again"


class _Compared(NamedTuple):
    """Lines of the table, and what to say about what is not in it."""

    rows: list[tuple[str, ...]]
    remarks: list[str]


def comparison(runs: Sequence[Run]) -> list[Part]:
    """Every run minus the first one, on the rows and prompts that both were scored on, and what is not compared."""
    parts: list[Part] = []
    for suite in suites(runs):
        base, *others = [run for run in runs if suite in run.results]
        compared = [_against(run, base, suite) for run in others]
        if rows := [row for one in compared for row in one.rows]:
            parts.append(Table(_HEADER, rows, title=f"Suite {suite}: points more than {base.name}", names=3))
        if remarks := [remark for one in compared for remark in one.remarks]:
            parts.append(Sentences(remarks))
    return [*parts, Sentences([_EXPLAINED])] if any(isinstance(part, Table) for part in parts) else parts


def _against(run: Run, base: Run, suite: str) -> _Compared:
    ours, theirs = (_entries(one.results[suite]) for one in (run, base))
    our_items, their_items = (_items(one, suite) for one in (run, base))
    unnamed = "" if all("files" in one.results[suite] for one in (run, base)) else _UNNAMED
    same_words = any(_same_prompts(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    rows: list[tuple[str, ...]] = []
    reasons: dict[str, list[str]] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        (dataset, split, _), entry, other = key, ours.get(key), theirs.get(key)
        if entry is None or other is None:
            reasons.setdefault("only one of the two was scored on it", []).append(f"{dataset} {split}")
            continue
        if reason := _why_not(entry, other) or unnamed:
            reasons.setdefault(reason, []).append(dataset)
            continue
        tasks, other_words = _tasks(entry, other, same_words)
        if other_words:
            reasons.setdefault("prompts with other texts, choices or renderer", []).append(
                f"{dataset} ({', '.join(other_words)})"
            )
        found = paired(
            {task: scored for task, scored in our_items.get((dataset, split), {}).items() if task in tasks},
            their_items.get((dataset, split), {}),
            run.results[suite]["seed"],
        )
        if found is None:
            reasons.setdefault("no row is common to both under the same prompt", []).append(dataset)
            continue
        prompts, difference = found
        low, high = difference.median_interval
        rows.append(
            (
                *(dataset, split, run.name, f"{prompts}", f"{difference.items:,}"),
                with_interval(difference.median, difference.median_interval),
                with_interval(difference.mean, difference.mean_interval),
                "yes" if low > 0 or high < 0 else "no",
            )
        )
    pair, remarks = f"{run.name} and {base.name}, {suite}", []
    if rows and not same_words:
        remarks.append(
            f"{pair}: no prompt has the same tokens in both: vocabularies (or all templates) differ, and prompts are "
            "paired by their names."
        )
    if rows:
        remarks += _other_draws(pair, run.results[suite], base.results[suite])
    remarks += [f"{pair}, not compared: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return _Compared(rows, remarks)


def _items(run: Run, suite: str) -> Items:
    """Scores of single items; none of results of an earlier version, which do not name their files."""
    results = run.results[suite]
    return read_items(RunFolder(run.folder).results(suite), results["files"]) if "files" in results else {}


def _entries(results: Mapping[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The entries of datasets by (dataset, split, whether ranked or generated)."""
    return {
        (entry["dataset"], entry["split"], kind): entry
        for kind in ("tasks", "generated")
        for entry in results.get(kind, ())
    }


def _why_not(entry: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why the rows of a dataset cannot be paired with those of the other run; empty if they can."""
    if not entry.get("revision") or not other.get("revision"):
        return "results of an earlier version do not say which rows were scored: evaluate again"
    if entry["revision"] != other["revision"]:
        return "the rows are different ones: other files, or an older or newer state of them"
    if any(entry.get(key, usual) != other.get(key, usual) for key, usual in (("metric", ""), ("normalise", "sum"))):
        return "answers were judged in different ways (metric, normalise)"
    return ""


def _same_prompts(entry: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """Tasks whose rows, templates and vocabulary are the same."""
    known = {prompt["task"]: prompt.get("identity") for prompt in other["prompts"]}
    return {p["task"] for p in entry["prompts"] if p.get("identity") and p["identity"] == known.get(p["task"])}


def _tasks(entry: Mapping[str, Any], other: Mapping[str, Any], same_words: bool) -> tuple[set[str], list[str]]:
    """The tasks that ask both runs the same, and the names of the prompts that do not.

    A prompt's identity holds the vocabulary, too: between models of different vocabularies no two are equal, and names
    have to do.
    """
    both = {prompt["task"] for prompt in entry["prompts"]} & {prompt["task"] for prompt in other["prompts"]}
    same = _same_prompts(entry, other) if same_words else both
    return same, [prompt["name"] for prompt in entry["prompts"] if prompt["task"] in both - same]


def _other_draws(pair: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Say so where the two evaluations drew their rows differently."""
    draws = [_draw(results) for results in (ours, theirs)]
    if draws[0] != draws[1]:
        yield f"{pair}: scored on {draws[0]}, and on {draws[1]}; compared on the rows that both have."


def _draw(results: Mapping[str, Any]) -> str:
    limit = results.get("limit")
    return (f"at most {limit:,} rows of each dataset" if limit else "all rows") + f" (seed {results['seed']})"
