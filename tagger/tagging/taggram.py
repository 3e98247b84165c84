"""Pictures: taggrams, and what all pictures have in common; see also `evaluate.report.figures`."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from tagger.base.files import atomic_write
from tagger.base.text import drawable
from tagger.tagging.taggram_view import TaggramView, strength, taggram_view, time_marks

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

_DPI = 150
_WIDTH = 10.0
_ROW, _WAVE, _EDGES = 0.215, 0.5, 0.95
_LONGEST_NAME = 28
# Colours, told apart also by those who see fewer (after Okabe and Ito).
PAPER, INK, QUIET, GRID = "#ffffff", "#1c1e21", "#5c6269", "#dfe2e6"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
# Colour map of shares, from nothing to all.
HEAT = "Blues"


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Any:
    """Empty figure, in inches, that belongs to no window system and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows without further ado."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            write_png(self, file, dpi=_DPI)
            return file.getvalue()

    figure = Picture(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Any, file: BinaryIO, *, dpi: int) -> None:
    """Write a figure as a PNG."""
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # `savefig` would draw it twice: once to find out where everything goes.
        figure.set_dpi(dpi)
        figure.canvas.print_png(file)


def plot_taggram(prediction: "Prediction", path: Path) -> None:
    """Draw scores over time as a PNG.

    Parameters
    ----------
    prediction : Prediction
        What to draw.
    path : Path
        The picture.
    """
    with atomic_write(path) as file:
        write_png(taggram_figure(taggram_view(prediction)), file, dpi=_DPI)


def taggram_figure(view: TaggramView) -> Any:
    """Draw a taggram: loudness above, scores of the clip and thresholds at the side.

    Parameters
    ----------
    view : TaggramView
        What to draw.

    Returns
    -------
    matplotlib.figure.Figure
        Time that no window covers stays empty.
    """
    has_wave = view.loudness is not None
    n_tags = len(view.tags)
    figure = new_figure(_WIDTH, _EDGES + _ROW * n_tags + (_WAVE if has_wave else 0))
    figure.set_facecolor(PAPER)
    grid = figure.add_gridspec(
        2 if has_wave else 1,
        2,
        width_ratios=[8, 1],
        height_ratios=[_WAVE, _ROW * n_tags] if has_wave else [1],
    )
    axes = figure.add_subplot(grid[-1, 0])
    _heat(axes, view)
    _scores(figure.add_subplot(grid[-1, 1], sharey=axes), view)
    top = axes
    if has_wave:
        top = figure.add_subplot(grid[0, 0], sharex=axes)
        _wave(top, view)
    title = drawable(view.title) or "taggram"
    top.set_title(title, fontsize=10, color=INK, loc="left", parse_math=False)
    return figure


def _heat(axes: Any, view: TaggramView) -> None:
    n_tags = len(view.tags)
    axes.set_facecolor("#f1f3f5")
    axes.imshow(
        strength(view.cells),
        aspect="auto",
        interpolation="nearest",
        extent=(0, view.seconds, n_tags, 0),
        vmin=0,
        vmax=1,
        cmap=HEAT,
    )
    names = [_short(tag) for tag in view.tags]
    axes.set_yticks(np.arange(n_tags) + 0.5, names, parse_math=False)
    marks = time_marks(view.seconds)
    axes.set_xticks([at for at, _ in marks], [text for _, text in marks])
    axes.set_xlim(0, view.seconds)
    axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=8, length=3)
    axes.tick_params(axis="y", length=0)
    for label, score, limit in zip(
        axes.get_yticklabels(), view.scores, view.thresholds, strict=True
    ):
        label.set_fontweight("bold" if score >= limit else "normal")
    _frame(axes, "left", "bottom")


def _scores(axes: Any, view: TaggramView) -> None:
    """Bars of the clip's scores, and where each tag begins to apply."""
    rows = np.arange(len(view.tags)) + 0.5
    axes.barh(rows, view.scores, height=0.72, color=BLUE, alpha=0.45)
    known = np.isfinite(view.thresholds)
    axes.plot(
        view.thresholds[known],
        rows[known],
        linestyle="none",
        marker="|",
        markersize=9,
        markeredgewidth=2,
        color=ORANGE,
    )
    for row, score in zip(rows, view.scores, strict=True):
        axes.text(1.04, row, f"{score:.2f}", fontsize=7.5, color=INK, va="center")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 1], ["0", "1"])
    axes.set_xlabel("clip | threshold" if known.any() else "clip", fontsize=8, color=QUIET)
    axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=8, length=3)
    axes.tick_params(axis="y", left=False, labelleft=False)
    _frame(axes, "left", "bottom")


def _wave(axes: Any, view: TaggramView) -> None:
    assert view.loudness is not None
    at = (np.arange(len(view.loudness)) + 0.5) * (view.seconds / len(view.loudness))
    height = np.sqrt(view.loudness)
    axes.fill_between(at, -height, height, color=QUIET, alpha=0.55, linewidth=0)
    axes.set_ylim(-1.05, 1.05)
    axes.set_yticks([])
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    _frame(axes)


def _frame(axes: Any, *sides: str) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in sides)
        spine.set_color(QUIET)


def _short(name: str) -> str:
    name = drawable(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
