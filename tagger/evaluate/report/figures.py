"""Pictures of a report, drawn from arrays for a light or a dark page."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tagger.base.text import drawable
from tagger.evaluate.report.contents import Floats, Reliability
from tagger.evaluate.report.curves import RECALLS
from tagger.tagging.taggram import BLUE, GREEN, GRID, HEAT, INK, ORANGE, PAPER, QUIET, new_figure

# Inches; at 100 pixels per inch a little less than a page of 1200.
_WIDTH = 11.2
_TEXT, _SMALL = 9, 8
# Of a tag in a picture: a name may be of any length.
_NAME_LENGTH = 22
_BARS_PER_COLUMN = 64
_FEW_BARS = 40
_CURVES_PER_ROW = 6


def new_picture(height: float, *, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Make an empty figure of the page's width, with a height in inches."""
    figure = new_figure(_WIDTH, height, layout=layout)
    figure.set_facecolor(PAPER)
    return figure


def style(axes: Any, *, grid: str | None = "both") -> None:
    """Give axes the look of all pictures; `grid` is ``"x"``, ``"y"``, ``"both"`` or None."""
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=_SMALL, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(QUIET)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(_TEXT)
    if grid is not None:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=_TEXT, color=INK, parse_math=False)


def _legend(axes: Any, **where: Any) -> None:
    legend = axes.legend(fontsize=_SMALL, labelcolor=INK, frameon=False, **where)
    # What lies behind shines through, but not so much that the text cannot be read.
    legend.set_zorder(5)


def _legend_above(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        fontsize=_SMALL,
        labelcolor=INK,
        frameon=False,
    )


def _short(name: str) -> str:
    name = drawable(name)
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def learning_curves(history: Sequence[dict[str, float]], *, monitor: str) -> Any:
    """Losses, the monitored metric and the learning rate over the epochs, side by side.

    Parameters
    ----------
    history : sequence of dict
        Rows of a run's metrics, at least one.
    monitor : str
        Metric that chose the best epoch; the lowest loss, or the highest of the others.
    """
    epochs = [row["epoch"] for row in history]
    figure = new_picture(3.4)
    left, middle, right = figure.subplots(1, 3)

    def draw(axes: Any, key: str, label: str, color: str) -> None:
        values = [row.get(key, np.nan) for row in history]
        axes.plot(epochs, values, color=color, label=label, marker=".", linewidth=1.6)

    draw(left, "train_loss", "training", BLUE)
    draw(left, "validation_loss", "validation", ORANGE)
    left.set_ylabel("loss (nats per tag)")
    key = f"validation_{monitor}"
    draw(middle, key, "validation", ORANGE)
    middle.set_ylabel(_metric_name(monitor))
    draw(right, "learning_rate", "learning rate", GREEN)
    right.set_ylabel("learning rate at the end of the epoch")
    if any(row.get("learning_rate", 0) > 0 for row in history):
        right.set_yscale("log")
    values = np.array([row.get(key, np.nan) for row in history])
    best = None
    if not np.isnan(values).all():
        best = int(np.nanargmin(values) if monitor == "loss" else np.nanargmax(values))
    for axes in (left, middle, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        style(axes)
        if best is not None:
            axes.axvline(epochs[best], color=QUIET, linewidth=1, linestyle=":", zorder=1)
    if best is not None:
        _title(middle, f"best: {values[best]:.4f} in epoch {epochs[best]:g} (dotted)")
    _legend(left, loc="upper right")
    return figure


def _metric_name(key: str) -> str:
    kind, _, average = key.rpartition("_")
    known = {"pr_auc": "PR-AUC", "roc_auc": "ROC-AUC"}
    return f"{known[kind]}, {average}" if kind in known else key


def average_curve(curves: Floats, *, positive_rate: float) -> Any:
    """Precision over recall: how it spreads over the tags, and their mean.

    Parameters
    ----------
    curves : np.ndarray [shape=(n_tags, len(RECALLS)), dtype=float64]
        Precision of the tags at `RECALLS`.
    positive_rate : float
        Mean of the tags: the precision of guessing.
    """
    figure = new_picture(4.6)
    axes = figure.subplots()
    low, lower, median, upper, high = np.quantile(curves, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    bands = ((low, high, 0.18, "8 of 10 tags"), (lower, upper, 0.34, "half of the tags"))
    for first, last, alpha, label in bands:
        axes.fill_between(RECALLS, first, last, color=BLUE, alpha=alpha, linewidth=0, label=label)
    axes.plot(RECALLS, median, color=BLUE, linestyle="--", label="median of the tags")
    axes.plot(RECALLS, curves.mean(axis=0), color=BLUE, linewidth=2.4, label="macro average")
    axes.axhline(positive_rate, color=ORANGE, linestyle=":", label="guessing")
    axes.set_xlabel("recall (share of the clips with the tag that are found)")
    axes.set_ylabel("precision (share of the found that are right)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    style(axes)
    _legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def curve_grid(groups: Sequence[tuple[str, Sequence[tuple[str, Floats, float, float]]]]) -> Any:
    """Precision over recall of single tags, a small picture each.

    Parameters
    ----------
    groups : sequence of (str, sequence)
        Title of a group of pictures, and of each tag its name, its precision at `RECALLS`, its
        PR-AUC and its positive rate.
    """
    rows = [
        (title if first == 0 else "", tags[first : first + _CURVES_PER_ROW])
        for title, tags in groups
        for first in range(0, len(tags), _CURVES_PER_ROW)
    ]
    height = 0.4 + 1.75 * len(rows)
    # Set by hand, as all are alike: finding out takes longer than drawing.
    figure = new_picture(height, layout=None)
    figure.subplots_adjust(
        left=0.05, right=0.99, top=1 - 0.3 / height, bottom=0.5 / height, hspace=0.35, wspace=0.12
    )
    grid = figure.subplots(len(rows), _CURVES_PER_ROW, sharex=True, sharey=True, squeeze=False)
    for (title, tags), line in zip(rows, grid, strict=True):
        for axes in line[len(tags) :]:
            axes.set_visible(False)
        for axes, (name, curve, area, rate) in zip(line, tags, strict=False):
            axes.fill_between(RECALLS, curve, color=BLUE, alpha=0.18, linewidth=0)
            axes.plot(RECALLS, curve, color=BLUE, linewidth=1.6)
            axes.axhline(rate, color=ORANGE, linestyle=":", linewidth=1.4)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.04)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
            style(axes)
            _title(axes, f"{_short(name)}  {area:.2f}")
        line[0].set_ylabel(f"{title}\nprecision" if title else "precision")
    # Also above pictures that are not there.
    for column in range(_CURVES_PER_ROW):
        lowest = [axes for axes in grid[:, column] if axes.get_visible()]
        if lowest:
            lowest[-1].set_xlabel("recall")
            lowest[-1].xaxis.set_tick_params(labelbottom=True)
    return figure


def tag_bars(
    names: Sequence[str],
    values: Floats,
    *,
    positive_rate: Floats,
    low: Floats | None = None,
    high: Floats | None = None,
    label: str = "PR-AUC",
) -> Any:
    """Draw a bar per tag in as many columns as it takes, highest first.

    Parameters
    ----------
    names : sequence of str
        Tags that were scored, at least one.
    values : np.ndarray [shape=(n_tags,), dtype=float64]
        Lengths of the bars, between 0 and 1.
    positive_rate : np.ndarray [shape=(n_tags,), dtype=float64]
        What guessing has, as a mark.
    low, high : np.ndarray [shape=(n_tags,)], optional
        Ends of the 95 % intervals.
    label : str
        What is shown.
    """
    order = np.argsort(-values, kind="stable")
    n_columns = 1 if len(order) <= _FEW_BARS else max(2, -(-len(order) // _BARS_PER_COLUMN))
    per_column = -(-len(order) // n_columns)
    figure = new_picture(0.9 + 0.19 * per_column)
    lines = figure.subplots(1, n_columns, squeeze=False)[0]
    for number, axes in enumerate(lines):
        some = order[number * per_column : (number + 1) * per_column]
        rows = np.arange(len(some))
        axes.barh(rows, values[some], height=0.68, color=BLUE, alpha=0.45, label=label)
        if low is not None and high is not None:
            axes.hlines(
                rows, low[some], high[some], color=INK, linewidth=1.3, label="95 % interval"
            )
        axes.plot(
            positive_rate[some],
            rows,
            linestyle="none",
            marker="|",
            markersize=8,
            markeredgewidth=2,
            color=ORANGE,
            label="positive rate (guessing)",
        )
        axes.set_yticks(rows, [_short(names[tag]) for tag in some], parse_math=False)
        axes.set_ylim(per_column - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        style(axes, grid="x")
        axes.tick_params(axis="y", length=0)
    _legend_above(figure, lines[0])
    return figure


def reliability_diagram(curves: Sequence[Reliability]) -> Any:
    """How often a score of so much is right, and how many scores there are of it.

    Parameters
    ----------
    curves : sequence of Reliability
        At least one; of more than three the first ones.
    """
    figure = new_picture(4.4)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="perfect")
    styles = zip(
        curves,
        (BLUE, ORANGE, GREEN),
        ("o", "s", "^"),
        strict=False,
    )
    n_bins = max(len(curve.counts) for curve in curves)
    for number, (curve, color, marker) in enumerate(styles):
        there = curve.counts > 0
        left.plot(
            curve.mean_score[there],
            curve.positive_rate[there],
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            label=f"{curve.name}: error {curve.error:.4f}",
        )
        edges = np.linspace(0, 1, len(curve.counts) + 1)
        right.stairs(
            np.maximum(curve.counts, 0.5),
            edges,
            color=color,
            linewidth=1.8,
            fill=number == 0,
            alpha=0.4 if number == 0 else 1,
            baseline=0.5,
            label=curve.name,
        )
    left.set_xlabel("mean score")
    left.set_ylabel("share of the clips with the tag")
    left.set_xlim(0, 1)
    left.set_ylim(0, 1.02)
    left.set_aspect("equal", adjustable="box")
    right.set_yscale("log")
    right.set_xlabel(f"score ({n_bins} bins)")
    right.set_ylabel("scores (clips × tags)")
    right.set_xlim(0, 1)
    right.set_ylim(bottom=0.5)
    for axes in (left, right):
        style(axes)
    # Above both, as a curve may go anywhere.
    _legend_above(figure, left)
    return figure


def _colour_bar(figure: Any, mesh: Any, axes: Any, *, label: str, counts: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=30)
    if counts:
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    bar.set_label(label, color=INK, fontsize=_TEXT)
    bar.ax.tick_params(colors=QUIET, labelcolor=INK, labelsize=_SMALL)
    bar.outline.set_visible(False)


def confusion_map(
    counts: npt.NDArray[np.int64],
    *,
    missed: Sequence[str],
    given: Sequence[str],
    row_title: str = "missed tag",
    column_title: str = "wrongly given tag",
) -> Any:
    """Which tag or label is given where which is right.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_missed, n_given), dtype=int64]
        Clips.
    missed, given : sequence of str
        Names of the rows and of the columns.
    row_title, column_title : str
        What the rows and the columns are.
    """
    n_rows, n_columns = counts.shape
    figure = new_picture(1.9 + 0.27 * n_rows)
    axes = figure.subplots()
    highest = max(1, int(counts.max()))
    mesh = axes.pcolormesh(counts, vmin=0, vmax=highest, cmap=HEAT)
    for row, column in zip(*np.nonzero(counts), strict=True):
        shade = mesh.cmap(counts[row, column] / highest)
        # By perceived brightness, so that a number is read on its cell.
        bright = np.dot(shade[:3], (0.299, 0.587, 0.114)) > 0.55
        axes.text(
            column + 0.5,
            row + 0.5,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=_SMALL,
            color="#101214" if bright else "#ffffff",
        )
    axes.set_yticks(np.arange(n_rows) + 0.5, [_short(name) for name in missed], parse_math=False)
    axes.set_xticks(
        np.arange(n_columns) + 0.5,
        [_short(name) for name in given],
        parse_math=False,
        rotation=50,
        ha="right",
        rotation_mode="anchor",
    )
    axes.invert_yaxis()
    axes.set_ylabel(row_title)
    axes.set_xlabel(column_title)
    style(axes, grid=None)
    axes.tick_params(length=0)
    _colour_bar(figure, mesh, axes, label="clips", counts=True)
    return figure
