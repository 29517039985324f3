"""How training went: curves and speed, tasks drawn, and how full packed rows are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from t0train.report import figures
from t0train.report.figures import TaskShare
from t0train.report.page import PageSection, Part, Sentences, picture
from t0train.report.run_data import RunData

_TRAINING = (
    figures.Curve("cross_entropy", "cross-entropy", "nats a target token"),
    figures.Curve("loss", "loss (what is minimised)", "nats / denominator"),
    figures.Curve("lr", "learning rate", "learning rate", smooth=False),
    figures.Curve("grad_norm", "gradient norm", "global L2 norm"),
    figures.Curve("update_rms", "update before clipping", "RMS over all weights"),
    figures.Curve("examples_per_s", "speed", "examples/s", of_speed=True),
)


def training_section(runs: Sequence[RunData]) -> PageSection:
    """Loss, learning rate, gradient norm, size of updates and speed over steps."""
    return PageSection("Training", _curves(runs))


def _curves(runs: Sequence[RunData]) -> list[Part]:
    figure = figures.draw_curves(runs, _TRAINING)
    if figure is None:
        return [Sentences(["No training step has been logged yet."])]
    parts: list[Part] = [
        picture("training", "Loss, learning rate, gradient norm, size of updates and speed over steps.", figure)
    ]
    speeds = [_speed(run) for run in runs if run.speeds]
    return [*parts, Sentences(speeds)] if speeds else parts


def _speed(run: RunData) -> str:
    """What the speed events say, as a sentence; they differ from machine to machine."""
    events = run.speeds
    per_second = {
        key: sorted(event.value(key) for event in events)[len(events) // 2]
        for key in events[-1].model_extra or {}
        if key.endswith("_per_s") and all(figures.is_plausible(event.value(key)) for event in events)
    }
    stated = ", ".join(
        f"{value:,.1f} {key.removesuffix('_per_s').replace('_', ' ')}/s" for key, value in per_second.items()
    )
    return f"{run.name}: {stated} (median of {len(events)} measurements)."


def tasks_section(runs: Sequence[RunData]) -> PageSection:
    """How often each task was drawn, and how often it should have been."""
    return PageSection("Tasks drawn", [part for run in runs for part in _tasks_drawn(run, runs)])


def _tasks_drawn(run: RunData, runs: Sequence[RunData]) -> list[Part]:
    shares = task_shares(run)
    if not shares:
        return [Sentences([f"{run.name}: no draws have been logged yet."])]
    remarks = [f"{run.name}: {remark}." for event in run.starts for remark in event.remarks]
    title = f"tasks-{runs.index(run)}" if len(runs) > 1 else "tasks"
    caption = f"{run.name}: share of the examples drawn from each task, and its probability in the mixture."
    return [Sentences([*remarks, _draws(run, shares)]), picture(title, caption, figures.draw_task_shares(shares))]


def _draws(run: RunData, shares: Sequence[TaskShare]) -> str:
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


def packing_section(runs: Sequence[RunData]) -> PageSection:
    """The share of the slots of packed rows that hold tokens."""
    figure = figures.draw_curves(runs, _FILL)
    if figure is None:
        return PageSection("Packing", [Sentences(["No packed row has been logged yet."])])
    caption = "Share of the slots of a step's rows that hold tokens; the rest is padding."
    filled = Sentences([_fill(run) for run in runs if run.steps])
    return PageSection("Packing", [picture("packing", caption, figure), filled])


def _fill(run: RunData) -> str:
    steps = run.steps
    rows = sum(step.rows for step in steps)
    inputs = sum(step.fill_inputs * step.rows for step in steps) / rows
    targets = sum(step.fill_targets * step.rows for step in steps) / rows
    examples = sum(step.examples for step in steps)
    return (
        f"{run.name}: {100 * inputs:.1f} % of the input slots and {100 * targets:.1f} % of the target slots are "
        f"filled, {examples / rows:.1f} examples a row."
    )


def task_shares(run: RunData) -> list[TaskShare]:
    """The tasks of the mixture, the most probable first; empty before the first step or without probabilities."""
    starts = [event.probabilities for event in run.starts if event.probabilities]
    drawn: Counter[str] = Counter()
    for event in run.steps:
        drawn.update(event.tasks)
    total = drawn.total()
    if not starts or not total:
        return []
    probabilities = starts[-1]
    shares = []
    for task in sorted(probabilities, key=lambda name: (-probabilities[name], name)):
        expected = probabilities[task]
        margin = 1.96 * math.sqrt(expected * (1 - expected) / total)
        shares.append(TaskShare(task, expected, drawn[task] / total, max(0.0, expected - margin), expected + margin))
    return shares
