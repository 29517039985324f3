"""What a report says on runs: its sections, and those on training."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from t0train.report import figures
from t0train.report.accuracy import accuracy, every_prompt
from t0train.report.beside import published_beside
from t0train.report.compare import comparison
from t0train.report.differing import differing_keys
from t0train.report.findings import findings
from t0train.report.parts import Part, Section, Sentences, Table, picture
from t0train.report.runs import Run
from t0train.report.scores import NOTHING
from t0train.report.shares import Share, task_shares

_LAST = 20
"""Steps at the end of a run whose mean stands for its result: one step alone is noise."""


def build(runs: Sequence[Run]) -> list[Section]:
    """All sections of the report on these runs."""
    sections = [
        Section("Runs", [_overview(runs), *differing_keys(runs)]),
        Section("Accuracy", accuracy(runs)),
        Section("Comparison", comparison(runs)),
        Section("Beside published results", published_beside(runs)),
        *findings(runs),
        Section("Training", _training(runs)),
        Section("Tasks drawn", [part for run in runs for part in _shares(run, runs)]),
        Section("Packing", _packing(runs)),
        Section("Deviations from T0", [part for run in runs for part in deviations(run, runs)]),
        Section("Every prompt", every_prompt(runs)),
    ]
    return [section for section in sections if section.parts]


def _overview(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        steps, config = run.of_kind("step"), run.config
        model, mixture, train = (config.get(key, {}) for key in ("model", "mixture", "train"))
        start = model.get("start", NOTHING)
        rows.append(
            (
                run.name,
                f"{model.get('size')}, random weights" if start == "random" else start,
                str(mixture.get("name", NOTHING)),
                run.config_hash,
                f"{steps[-1]['step'] if steps else 0:,} of {train.get('steps', 0):,}",
                _sum(steps, "examples"),
                _sum(steps, "tokens"),
                f"{mean(step['cross_entropy'] for step in steps[-_LAST:]):.4f}" if steps else NOTHING,
            )
        )
    header = ("run", "starts from", "mixture", "configuration", "steps", "examples", "target tokens", "cross-entropy")
    return Table(header, rows, names=4, title=f"Cross-entropy in nats a target token, mean of the last {_LAST} steps")


def _sum(steps: Sequence[dict[str, float]], key: str) -> str:
    return f"{sum(step.get(key, 0) for step in steps):,.0f}" if steps else NOTHING


_TRAINING = (
    figures.Curve("cross_entropy", "cross-entropy", "nats a target token"),
    figures.Curve("loss", "loss (what is minimised)", "nats / denominator"),
    figures.Curve("lr", "learning rate", "learning rate", smooth=False),
    figures.Curve("grad_norm", "gradient norm", "global L2 norm"),
    figures.Curve("update_rms", "update before clipping", "RMS over all weights"),
    figures.Curve("examples_per_s", "speed", "examples/s", kind="speed"),
)


def _training(runs: Sequence[Run]) -> list[Part]:
    figure = figures.curves(runs, _TRAINING)
    if figure is None:
        return [Sentences(["No training step has been logged yet."])]
    parts: list[Part] = [
        picture("training", "Loss, learning rate, gradient norm, size of updates and speed over steps.", figure)
    ]
    speeds = [_speed(run) for run in runs if run.of_kind("speed")]
    return [*parts, Sentences(speeds)] if speeds else parts


def _speed(run: Run) -> str:
    """What the speed events say, as a sentence; they differ from machine to machine."""
    events = run.of_kind("speed")
    per_second = {
        key: sorted(event[key] for event in events)[len(events) // 2]
        for key in events[-1]
        if key.endswith("_per_s") and all(figures.is_plausible(event.get(key)) for event in events)
    }
    stated = ", ".join(
        f"{value:,.1f} {key.removesuffix('_per_s').replace('_', ' ')}/s" for key, value in per_second.items()
    )
    return f"{run.name}: {stated} (median of {len(events)} measurements)."


def _shares(run: Run, runs: Sequence[Run]) -> list[Part]:
    shares = task_shares(run)
    if not shares:
        return [Sentences([f"{run.name}: no draws have been logged yet."])]
    remarks = [f"{run.name}: {remark}." for event in run.of_kind("start") for remark in event.get("remarks", [])]
    title = f"tasks-{runs.index(run)}" if len(runs) > 1 else "tasks"
    caption = f"{run.name}: share of the examples drawn from each task, beside its probability in the mixture."
    return [Sentences([*remarks, _draws(run, shares)]), picture(title, caption, figures.task_shares(shares))]


def _draws(run: Run, shares: Sequence[Share]) -> str:
    inside = sum(share.low <= share.drawn <= share.high for share in shares)
    worst = max(shares, key=lambda share: share.surprise)
    never = sum(share.drawn == 0 for share in shares)
    return (
        f"{run.name}: {len(shares)} tasks, {inside} of them inside the range that holds 95 % of independent draws; "
        f"the farthest is {worst.task}, drawn {100 * worst.drawn:.2f} % of the time where {100 * worst.expected:.2f} % "
        f"was expected ({worst.surprise:.1f} standard errors)" + (f"; {never} not drawn yet." if never else ".")
    )


_FILL = (
    figures.Curve("fill_inputs", "inputs", "fill (%)", bounds=(0, 100), scale=100),
    figures.Curve("fill_targets", "targets", "fill (%)", bounds=(0, 100), scale=100),
)


def _packing(runs: Sequence[Run]) -> list[Part]:
    figure = figures.curves(runs, _FILL)
    if figure is None:
        return [Sentences(["No packed row has been logged yet."])]
    caption = "Share of the slots of a step's rows that hold tokens; the rest is padding."
    return [picture("packing", caption, figure), Sentences([_fill(run) for run in runs if run.of_kind("step")])]


def _fill(run: Run) -> str:
    steps = run.of_kind("step")
    rows = sum(step["rows"] for step in steps)
    inputs, targets = (
        sum(step[key] * step["rows"] for step in steps) / rows for key in ("fill_inputs", "fill_targets")
    )
    examples = sum(step["examples"] for step in steps)
    return (
        f"{run.name}: {100 * inputs:.1f} % of the input slots and {100 * targets:.1f} % of the target slots are "
        f"filled, {examples / rows:.1f} examples a row."
    )


def deviations(run: Run, runs: Sequence[Run]) -> list[Part]:
    """A sentence for each key that differs from T0's recipe; the run is named where there are several."""
    name = f"{run.name}: " if len(runs) > 1 else ""
    if run.deviations is None:
        return [Sentences([f"{name}the run folder holds no deviations.json."])]
    if not run.deviations:
        return [Sentences([f"{name}none; every key of the recipe has T0's value."])]
    return [Sentences([name + deviation["sentence"] for deviation in run.deviations])]
