"""Pictures: taggrams, and what all pictures have in common; see also `evaluate.report.figures`."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tagger.base.files import atomic_write

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

_DPI = 120
_N_TAGGRAM_TAGS = 20
# The picture has hardly more pixels across.
_TAGGRAM_COLUMNS = 1000


def new_figure(width: float, height: float) -> Any:
    """Empty figure, in inches, that belongs to no window system and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def write_png(figure: Any, file: BinaryIO, *, dpi: int) -> None:
    """Write a figure as a PNG."""
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # `savefig` would draw it twice: once to find out where everything goes.
        figure.set_dpi(dpi)
        figure.canvas.print_png(file)


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path) as file:
        write_png(figure, file, dpi=_DPI)


def plot_taggram(prediction: "Prediction", path: Path, *, n_tags: int = _N_TAGGRAM_TAGS) -> None:
    """Draw scores over time as a PNG.

    Parameters
    ----------
    prediction : Prediction
        What to draw.
    path : Path
        The picture.
    n_tags : int
        Tags with the highest clip scores, highest on top.

    Notes
    -----
    A window is drawn up to the start of the next one. Time that no window covers stays empty. Of
    more windows than the picture is wide, each column shows the highest score of several.
    """
    columns = np.argsort(-prediction.scores, kind="stable")[:n_tags]
    names = [drawable(prediction.tags[column]) for column in columns]
    figure, axes = _figure(9, 1.4 + 0.24 * len(names))
    edges, values = taggram_cells(prediction, columns)
    mesh = axes.pcolormesh(
        edges,
        np.arange(len(names) + 1),
        values.T,
        vmin=0,
        vmax=1,
        cmap="magma",
    )
    # parse_math: names with two dollar signs are no formulas.
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("time (seconds)")
    title = drawable(Path(prediction.path).name) or "taggram"
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.colorbar(mesh, ax=axes, label="score", pad=0.01)
    _save(figure, path)


def drawable(name: str) -> str:
    """Escape the bytes of a file name that is no Unicode, which fonts refuse."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def taggram_cells(
    prediction: "Prediction", columns: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Edges of the cells in seconds, and what they show; NaN in gaps between windows.

    Returns
    -------
    np.ndarray [shape=(n_cells + 1,), dtype=float64]
    np.ndarray [shape=(n_cells, n_shown_tags), dtype=float32]
    """
    times = prediction.times
    values = prediction.taggram[:, columns]
    end = min(times[-1] + prediction.window_seconds, times[0] + prediction.seconds)
    if end <= times[-1]:
        end = times[-1] + prediction.window_seconds
    per_cell = -(-len(times) // _TAGGRAM_COLUMNS)
    firsts = np.arange(0, len(times), per_cell)
    values = np.maximum.reduceat(values, firsts, axis=0)
    starts = times[firsts]
    lasts = np.append(firsts[1:], len(times)) - 1
    nexts = np.append(starts[1:], end)
    ends = np.minimum(times[lasts] + prediction.window_seconds, nexts)
    # A gap that is narrower than the picture can show is none.
    gaps = np.flatnonzero(nexts - ends > (end - times[0]) / _TAGGRAM_COLUMNS)
    edges = np.insert(np.append(starts, end), gaps + 1, ends[gaps])
    return edges, np.insert(values, gaps + 1, np.nan, axis=0)
