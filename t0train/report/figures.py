"""The figures of a report, drawn by matplotlib without a display. Nothing here knows about pages.

Ink (text, axes, grid) is drawn in one colour that the page may replace to follow its light or dark scheme; the
colours of runs were chosen to read on both.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t0train.core.text import shortened
from t0train.report.run_data import RunData

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
INK = "#1f2328"
QUIET = "#8a8f98"
COLOURS = ("#3b82d6", "#e0762f", "#2a9d78", "#a667c8", "#d14b5a", "#a58a1f", "#4aa8b5", "#9a6b4f")


_WIDTH = 8.8  # inches
_ABSURD = 1e30
_TITLE = 26
"""Characters of a title that fit above a panel of the accuracy figure."""
_NAME = 60
"""Characters of a name that are drawn."""


class Box(NamedTuple):
    """One model in a panel of the accuracy figure: the accuracies of its prompts, and the baselines on its records."""

    model: str
    colour: str
    is_trained: bool
    accuracies: Sequence[float]  # fractions of 1, as the baselines
    chance: float
    majority: float


class Curve(NamedTuple):
    """One panel of curves: a key of the events of steps (or of speed), title, unit, whether a running mean helps."""

    key: str
    title: str
    unit: str
    of_speed: bool = False
    smooth: bool = True
    bounds: tuple[float, float] | None = None
    scale: float = 1.0


class Panel(NamedTuple):
    """One dataset of the accuracy figure."""

    dataset: str
    boxes: Sequence[Box]


class TaskShare(NamedTuple):
    """One task: fractions of all examples drawn so far."""

    task: str
    expected: float
    drawn: float
    low: float  # 95 % of independent draws fall between low and high (normal approximation)
    high: float

    @property
    def surprise(self) -> float:
        """Distance of the drawn share from the expected one, in standard errors."""
        error = (self.high - self.expected) / 1.96
        distance = abs(self.drawn - self.expected)
        if error == 0:  # a task that is always or never drawn
            return math.inf if distance else 0.0
        return distance / error


def colour(index: int) -> str:
    """Colour of the run with this index; the same in every figure."""
    return COLOURS[index % len(COLOURS)]


def _style() -> AbstractContextManager[None]:
    import matplotlib

    matplotlib.use("Agg")
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.linewidth": 0.7,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "axes.grid": True,
            "grid.color": QUIET,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "lines.linewidth": 1.4,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "text.parse_math": False,  # a name with $ in it is no formula
            "svg.fonttype": "none",  # text stays text: small, sharp, searchable
            "svg.hashsalt": "t0train",  # the same report gives the same bytes
        }
    )


def render(figure: Figure) -> tuple[str, bytes]:
    """The figure as SVG text and as PNG bytes (160 dots per inch), and close it."""
    import matplotlib.pyplot as plt

    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # no font has all scripts: the SVG leaves it to the reader's
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        figure.set_layout_engine("none")  # it is laid out now; once is enough
        figure.savefig(png, format="png", dpi=160, facecolor="white")
    plt.close(figure)
    return svg.getvalue().decode(), png.getvalue()


def draw_curves(runs: Sequence[RunData], panels: Sequence[Curve]) -> Figure | None:
    """Values of events over steps, a panel for each key that some run has logged; None when none has.

    Many points are drawn faintly with their running mean on top.
    """
    import matplotlib.pyplot as plt

    drawn = [panel for panel in panels if any(_series(run, panel)[0].size for run in runs)]
    if not drawn:
        return None
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    with _style():
        figure: Figure
        figure, grid = plt.subplots(rows, columns, figsize=(4.4 * columns, 2.3 * rows), squeeze=False)
        axes = list(grid.flat)
        for panel, axis in zip(drawn, axes, strict=False):
            for index, run in enumerate(runs):
                _line(axis, *_series(run, panel), index, _label(run.name), panel.smooth)
            axis.set(title=panel.title, xlabel="step", ylabel=panel.unit, ylim=panel.bounds)
            axis.xaxis.get_major_locator().set_params(integer=True)
        for axis in axes[len(drawn) :]:
            axis.set_visible(False)
        if len(runs) > 1:
            _legend(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def _series(run: RunData, panel: Curve) -> tuple[Floats, Floats]:
    logged = ((event.step, event.value(panel.key)) for event in (run.speeds if panel.of_speed else run.steps))
    drawn = [(step, panel.scale * value) for step, value in logged if is_plausible(value)]
    points = np.array(drawn, dtype=float).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def is_plausible(value: Any) -> bool:
    """Whether a logged value can be drawn and added up: a number that is finite and not beyond all measure."""
    return isinstance(value, (int, float)) and abs(value) < _ABSURD


def _line(axis: Axes, steps: Floats, values: Floats, index: int, name: str, smooth: bool) -> None:
    half = len(values) // 80 if smooth else 0
    if half:
        axis.plot(steps, values, color=colour(index), alpha=0.25, linewidth=0.8)
        window = np.full(2 * half + 1, 1 / (2 * half + 1))
        steps, values = steps[half:-half], np.convolve(values, window, mode="valid")
    axis.plot(steps, values, color=colour(index), label=name, marker="o" if len(values) == 1 else "")


def draw_task_shares(shares: Sequence[TaskShare]) -> Figure:
    """Share of the examples drawn from each task, and its probability, the most probable task first.

    The grey bar spans 95 % of what independent draws give. Up to 60 tasks are named.
    """
    import matplotlib.pyplot as plt

    named = len(shares) <= 60
    place = np.arange(len(shares))
    expected, low, high, drawn = np.array([(s.expected, s.low, s.high, s.drawn) for s in shares]).T * 100
    height = max(1.6, 0.6 + (0.2 * len(shares) if named else 5.4))
    with _style():
        figure: Figure
        figure, axis = plt.subplots(figsize=(_WIDTH, height))
        thick = 0.62 if named else 1.0
        axis.barh(place, high - low, left=low, height=thick, color=QUIET, alpha=0.35, label="95 % of random draws")
        axis.plot(expected, place, "|", color=INK, markersize=8 if named else 3, label="expected")
        axis.plot(drawn, place, "o", color=COLOURS[0], markersize=4 if named else 2.5, label="drawn")
        axis.set_yticks(place if named else [], [_label(share.task) for share in shares] if named else [], fontsize=7.5)
        axis.set(xlabel="share of examples (%)", ylim=(len(shares) - 0.4, -0.6))
        if named:
            axis.set_xlim(left=0)
        else:
            axis.set(xscale="log", ylabel=f"{len(shares)} tasks, most probable first")
        axis.grid(visible=False, axis="y")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def draw_accuracies(panels: Sequence[Panel]) -> Figure:
    """Accuracy over prompts, one panel for each dataset, a box for each model with a dot for each prompt."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    models = list(dict.fromkeys((box.model, box.colour, box.is_trained) for panel in panels for box in panel.boxes))
    columns = min(len(panels), 4 if len(models) <= 6 else 2)
    rows = math.ceil(len(panels) / columns)
    with _style():
        size = (max(3.4, _WIDTH / (4 if len(models) <= 6 else 2) * columns), 2.2 * rows + 0.3)
        figure: Figure
        figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
        axes = list(grid.flat)
        for (dataset, boxes), axis in zip(panels, axes, strict=False):
            _baselines(axis, boxes)
            for place, box in enumerate(boxes):
                _box(axis, place, box)
            axis.set(ylim=(0, 100), xlim=(-0.6, len(boxes) - 0.4), xticks=[])
            _title(axis, dataset)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for row in grid:
            row[0].set_ylabel("accuracy (%)")
        colours = [Patch(**_face(tint, trained), label=_label(name)) for name, tint, trained in models]
        _legend(figure, [*colours, *axes[0].get_legend_handles_labels()[0]])
    return figure


def _baselines(axis: Axes, boxes: Sequence[Box]) -> None:
    """Chance and majority under each box: models may have been scored on other records and prompts."""
    left = np.arange(len(boxes)) - 0.5
    for values, style, label in (
        ([box.majority for box in boxes], {"linestyle": "--", "linewidth": 1}, "majority class"),
        ([box.chance for box in boxes], {"linestyle": ":", "linewidth": 1.2}, "chance"),
    ):
        axis.hlines(100 * np.array(values), left, left + 1, color=QUIET, label=label, **style)


def _label(name: str) -> str:
    """A name in a legend or at an axis; matplotlib leaves out what is empty or begins with an underscore."""
    short = shortened(name, _NAME)
    return f" {short}" if short.startswith("_") else short or "(no name)"


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend above the panels, in as many columns as its longest entry allows."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(figure.get_figwidth() / (0.6 + 0.075 * longest)))
    figure.legend(handles=list(handles), loc="outside upper left", ncols=min(columns, len(handles)))


def _face(tint: str, is_trained: bool) -> dict[str, Any]:
    """How a box is filled and framed: that of a model before training is empty."""
    return {"facecolor": tint + "33" if is_trained else "none", "edgecolor": tint}


def _title(axis: Axes, text: str) -> None:
    """A title that stays within its panel: a long one in two lines, and smaller if need be."""
    text = shortened(text, 4 * _TITLE)
    if len(text) > _TITLE:
        text = text.replace(" (", "\n(") if " (" in text else text.replace("/", "/\n", 1)
    longest = max(1, *map(len, text.split("\n")))
    axis.set_title(text, fontsize=9.5 * min(1.0, _TITLE / longest))


def _box(axis: Axes, place: int, box: Box) -> None:
    values, tint = 100 * np.asarray(box.accuracies), box.colour
    line = {"color": tint, "linewidth": 1.2}
    axis.boxplot(
        [values],
        positions=[place],
        widths=0.5,
        showfliers=False,  # every prompt is a dot anyway
        patch_artist=True,
        boxprops=_face(tint, box.is_trained),
        medianprops={**line, "linewidth": 2},
        whiskerprops=line,
        capprops=line,
    )
    spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
    fill = tint if box.is_trained else "none"
    axis.plot(place + spread, values, "o", markeredgecolor=tint, markerfacecolor=fill, markersize=3.2, alpha=0.85)
