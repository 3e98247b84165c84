"""Pictures of a report, drawn from arrays for a light or a dark page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.evaluate.report.contents import Floats, Reliability
from tagger.evaluate.report.curves import RECALLS
from tagger.tagging.prediction import Prediction
from tagger.tagging.taggram import drawable, new_figure, taggram_cells

# Inches; at 100 pixels per inch a little less than a page of 1200.
_WIDTH = 11.2
_TEXT, _SMALL = 9, 8
# Of a tag in a picture: a name may be of any length.
_NAME_LENGTH = 22
_BARS_PER_COLUMN = 64
_FEW_BARS = 40
_CURVES_PER_ROW = 6


@dataclass(frozen=True)
class Theme:
    """Colours of a page, told apart also by those who see fewer (after Okabe and Ito).

    Parameters
    ----------
    name : str
        ``"light"`` or ``"dark"``.
    paper, ink, quiet, grid : str
        Background, text, secondary text and lines.
    first, second, third : str
        Series.
    heat : str
        Colour map of shares, from nothing to all.
    """

    name: str
    paper: str
    ink: str
    quiet: str
    grid: str
    first: str
    second: str
    third: str
    heat: str


LIGHT = Theme(
    "light",
    paper="#ffffff",
    ink="#1c1e21",
    quiet="#5c6269",
    grid="#dfe2e6",
    first="#0072b2",
    second="#d55e00",
    third="#009e73",
    heat="Blues",
)
DARK = Theme(
    "dark",
    paper="#16181c",
    ink="#e6e8eb",
    quiet="#a3a9b1",
    grid="#33373d",
    first="#56b4e9",
    second="#f0a35e",
    third="#2fc8a0",
    heat="magma",
)
THEMES = (LIGHT, DARK)


def _new(height: float, theme: Theme) -> Any:
    figure = new_figure(_WIDTH, height)
    figure.set_facecolor(theme.paper)
    return figure


def _style(axes: Any, theme: Theme, *, grid: str | None = "both") -> None:
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.quiet, labelcolor=theme.ink, labelsize=_SMALL, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.quiet)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
        label.set_fontsize(_TEXT)
    if grid is not None:
        axes.grid(axis=grid, color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)


def _title(axes: Any, text: str, theme: Theme) -> None:
    axes.set_title(text, fontsize=_TEXT, color=theme.ink, parse_math=False)


def _legend(axes: Any, theme: Theme, **where: Any) -> None:
    legend = axes.legend(fontsize=_SMALL, labelcolor=theme.ink, frameon=False, **where)
    # What lies behind shines through, but not so much that the text cannot be read.
    legend.set_zorder(5)


def _legend_above(figure: Any, axes: Any, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        fontsize=_SMALL,
        labelcolor=theme.ink,
        frameon=False,
    )


def _short(name: str) -> str:
    name = drawable(name)
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def learning_curves(history: Sequence[dict[str, float]], theme: Theme, *, monitor: str) -> Any:
    """Losses, the monitored metric and the learning rate over the epochs, side by side.

    Parameters
    ----------
    history : sequence of dict
        Rows of a run's metrics, at least one.
    theme : Theme
        Colours.
    monitor : str
        Metric that chose the best epoch; the lowest loss, or the highest of the others.
    """
    epochs = [row["epoch"] for row in history]
    figure = _new(3.4, theme)
    left, middle, right = figure.subplots(1, 3)

    def draw(axes: Any, key: str, label: str, color: str) -> None:
        values = [row.get(key, np.nan) for row in history]
        axes.plot(epochs, values, color=color, label=label, marker=".", linewidth=1.6)

    draw(left, "train_loss", "training", theme.first)
    draw(left, "validation_loss", "validation", theme.second)
    left.set_ylabel("loss (nats per tag)")
    key = f"validation_{monitor}"
    draw(middle, key, "validation", theme.second)
    middle.set_ylabel(_metric_name(monitor))
    draw(right, "learning_rate", "learning rate", theme.third)
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
        _style(axes, theme)
        if best is not None:
            axes.axvline(epochs[best], color=theme.quiet, linewidth=1, linestyle=":", zorder=1)
    if best is not None:
        _title(middle, f"best: {values[best]:.4f} in epoch {epochs[best]:g} (dotted)", theme)
    _legend(left, theme, loc="upper right")
    return figure


def _metric_name(key: str) -> str:
    kind, _, average = key.rpartition("_")
    known = {"pr_auc": "PR-AUC", "roc_auc": "ROC-AUC"}
    return f"{known[kind]}, {average}" if kind in known else key


def average_curve(curves: Floats, theme: Theme, *, positive_rate: float) -> Any:
    """Precision over recall: how it spreads over the tags, and their mean.

    Parameters
    ----------
    curves : np.ndarray [shape=(n_tags, len(RECALLS)), dtype=float64]
        Precision of the tags at `RECALLS`.
    theme : Theme
        Colours.
    positive_rate : float
        Mean of the tags: the precision of guessing.
    """
    figure = _new(4.6, theme)
    axes = figure.subplots()
    low, lower, median, upper, high = np.quantile(curves, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    bands = ((low, high, 0.18, "8 of 10 tags"), (lower, upper, 0.34, "half of the tags"))
    for first, last, alpha, label in bands:
        axes.fill_between(
            RECALLS, first, last, color=theme.first, alpha=alpha, linewidth=0, label=label
        )
    axes.plot(RECALLS, median, color=theme.first, linestyle="--", label="median of the tags")
    axes.plot(RECALLS, curves.mean(axis=0), color=theme.first, linewidth=2.4, label="macro average")
    axes.axhline(positive_rate, color=theme.second, linestyle=":", label="guessing")
    axes.set_xlabel("recall (share of the clips with the tag that are found)")
    axes.set_ylabel("precision (share of the found that are right)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _style(axes, theme)
    _legend(axes, theme, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def curve_grid(
    groups: Sequence[tuple[str, Sequence[tuple[str, Floats, float, float]]]], theme: Theme
) -> Any:
    """Precision over recall of single tags, a small picture each.

    Parameters
    ----------
    groups : sequence of (str, sequence)
        Title of a group of pictures, and of each tag its name, its precision at `RECALLS`, its
        PR-AUC and its positive rate.
    theme : Theme
        Colours.
    """
    rows = [
        (title if first == 0 else "", tags[first : first + _CURVES_PER_ROW])
        for title, tags in groups
        for first in range(0, len(tags), _CURVES_PER_ROW)
    ]
    figure = _new(0.4 + 1.75 * len(rows), theme)
    grid = figure.subplots(len(rows), _CURVES_PER_ROW, sharex=True, sharey=True, squeeze=False)
    for (title, tags), line in zip(rows, grid, strict=True):
        for axes in line[len(tags) :]:
            axes.set_visible(False)
        for axes, (name, curve, area, rate) in zip(line, tags, strict=False):
            axes.fill_between(RECALLS, curve, color=theme.first, alpha=0.18, linewidth=0)
            axes.plot(RECALLS, curve, color=theme.first, linewidth=1.6)
            axes.axhline(rate, color=theme.second, linestyle=":", linewidth=1.4)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.04)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
            _style(axes, theme)
            _title(axes, f"{_short(name)}  {area:.2f}", theme)
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
    theme: Theme,
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
    theme : Theme
        Colours.
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
    figure = _new(0.9 + 0.19 * per_column, theme)
    lines = figure.subplots(1, n_columns, squeeze=False)[0]
    for number, axes in enumerate(lines):
        some = order[number * per_column : (number + 1) * per_column]
        rows = np.arange(len(some))
        axes.barh(rows, values[some], height=0.68, color=theme.first, alpha=0.45, label=label)
        if low is not None and high is not None:
            axes.hlines(
                rows, low[some], high[some], color=theme.ink, linewidth=1.3, label="95 % interval"
            )
        axes.plot(
            positive_rate[some],
            rows,
            linestyle="none",
            marker="|",
            markersize=8,
            markeredgewidth=2,
            color=theme.second,
            label="positive rate (guessing)",
        )
        axes.set_yticks(rows, [_short(names[tag]) for tag in some], parse_math=False)
        axes.set_ylim(per_column - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        _style(axes, theme, grid="x")
        axes.tick_params(axis="y", length=0)
    _legend_above(figure, lines[0], theme)
    return figure


def reliability_diagram(curves: Sequence[Reliability], theme: Theme) -> Any:
    """How often a score of so much is right, and how many scores there are of it.

    Parameters
    ----------
    curves : sequence of Reliability
        At least one; of more than three the first ones.
    theme : Theme
        Colours.
    """
    figure = _new(4.4, theme)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=theme.quiet, linestyle=":", label="perfect")
    styles = zip(
        curves,
        (theme.first, theme.second, theme.third),
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
        _style(axes, theme)
    # Above both, as a curve may go anywhere.
    _legend_above(figure, left, theme)
    return figure


def taggram(
    prediction: Prediction, theme: Theme, *, shown: Sequence[int], true: npt.NDArray[np.bool_]
) -> Any:
    """Scores of a clip's windows over time, the tags that it carries marked.

    Parameters
    ----------
    prediction : Prediction
        Scores.
    theme : Theme
        Colours.
    shown : sequence of int
        Tags, from top to bottom; at least one.
    true : np.ndarray [shape=(n_tags,), dtype=bool]
        Tags that the clip carries.
    """
    columns = np.array(shown, dtype=np.intp)
    figure = _new(0.75 + 0.21 * len(columns), theme)
    axes = figure.subplots()
    edges, values = taggram_cells(prediction, columns)
    mesh = axes.pcolormesh(
        edges,
        np.arange(len(columns) + 1),
        values.T,
        vmin=0,
        vmax=1,
        cmap=theme.heat,
    )
    # Where those that the clip carries end.
    axes.axhline(int(true[columns].sum()), color=theme.quiet, linewidth=1.2)
    names = [
        f"{'● ' if true[tag] else ''}{_short(prediction.tags[tag])}  {prediction.scores[tag]:.2f}"
        for tag in columns
    ]
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("time (seconds)")
    _style(axes, theme, grid=None)
    axes.tick_params(axis="y", length=0)
    for label, tag in zip(axes.get_yticklabels(), columns, strict=True):
        label.set_color(theme.second if true[tag] else theme.ink)
        label.set_fontweight("bold" if true[tag] else "normal")
    _colour_bar(figure, mesh, axes, theme, label="score")
    return figure


def _colour_bar(
    figure: Any, mesh: Any, axes: Any, theme: Theme, *, label: str, counts: bool = False
) -> None:
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=30)
    if counts:
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    bar.set_label(label, color=theme.ink, fontsize=_TEXT)
    bar.ax.tick_params(colors=theme.quiet, labelcolor=theme.ink, labelsize=_SMALL)
    bar.outline.set_visible(False)


def confusion_map(
    counts: npt.NDArray[np.int64],
    theme: Theme,
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
    theme : Theme
        Colours.
    missed, given : sequence of str
        Names of the rows and of the columns.
    row_title, column_title : str
        What the rows and the columns are.
    """
    n_rows, n_columns = counts.shape
    figure = _new(1.9 + 0.27 * n_rows, theme)
    axes = figure.subplots()
    highest = max(1, int(counts.max()))
    mesh = axes.pcolormesh(counts, vmin=0, vmax=highest, cmap=theme.heat)
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
    _style(axes, theme, grid=None)
    axes.tick_params(length=0)
    _colour_bar(figure, mesh, axes, theme, label="clips", counts=True)
    return figure
