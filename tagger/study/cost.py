"""How good the variants of a study are, over what a clip costs: a picture with a point for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tagger.base.text import drawable
from tagger.tagging.taggram import BLUE, GREEN, GRID, INK, ORANGE, QUIET

Kind = Literal["fitted", "trained", "vote"]
_COLOURS: dict[Kind, str] = {"fitted": BLUE, "trained": ORANGE, "vote": GREEN}
_NAMES: dict[Kind, str] = {"fitted": "classifier", "trained": "network", "vote": "vote"}
# Of what takes no time that could be measured.
_LEAST_MS = 0.01
_LINE_INCHES = 0.21


@dataclass(frozen=True)
class Point:
    """A variant in the picture.

    Parameters
    ----------
    name : str
        What it is called.
    kind : {"fitted", "trained", "vote"}
        How it came about.
    value, low, high : float
        Its figure, and the ends of its interval.
    ms_per_clip : float
        What scoring a clip takes.
    """

    name: str
    kind: Kind
    value: float
    low: float
    high: float
    ms_per_clip: float


def cost_picture(points: Sequence[Point], *, metric: str) -> Any:
    """Draw a figure over what a clip costs.

    Parameters
    ----------
    points : sequence of Point
        At least one.
    metric : str
        What the figure is called.

    Returns
    -------
    matplotlib.figure.Figure
        Names stand beside, in the order of their figures, each joined to its point by a line.
    """
    from tagger.evaluate.report import figures

    ranked = sorted(points, key=lambda point: point.value)
    figure = figures.new_picture(max(3.2, 1.2 + _LINE_INCHES * len(ranked)), layout=None)
    figure.subplots_adjust(left=0.09, right=0.6, top=0.93, bottom=0.14)
    axes = figure.add_subplot()
    shown: set[str] = set()
    for point in ranked:
        x = max(_LEAST_MS, point.ms_per_clip)
        colour = _COLOURS[point.kind]
        if np.isfinite([point.low, point.high]).all():
            axes.plot([x, x], [point.low, point.high], color=colour, alpha=0.35, lw=1.6, zorder=2)
        label = None if point.kind in shown else _NAMES[point.kind]
        shown.add(point.kind)
        axes.scatter(x, point.value, s=30, color=colour, label=label, zorder=3, linewidths=0)
    axes.set_xscale("log")
    axes.set_xlabel("ms to score a clip")
    axes.set_ylabel(metric)
    figures.style(axes)
    heights = np.linspace(0.02, 0.98, len(ranked)) if len(ranked) > 1 else np.array([0.5])
    beside = axes.get_yaxis_transform()
    low, high = axes.get_ylim()
    for point, height in zip(ranked, heights, strict=True):
        y = low + height * (high - low)
        text = f"{point.value:.3f}  {drawable(point.name)}"
        axes.text(1.07, y, text, transform=beside, va="center", fontsize=8, color=INK)
        end = axes.transLimits.transform((np.log10(max(_LEAST_MS, point.ms_per_clip)), 0))[0]
        axes.plot(
            [end, 1.0, 1.06],
            [point.value, y, y],
            transform=beside,
            color=GRID if len(ranked) > 1 else QUIET,
            lw=0.7,
            zorder=1,
            clip_on=False,
        )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8, frameon=False)
    return figure
