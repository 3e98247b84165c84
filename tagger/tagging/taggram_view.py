"""What a taggram shows, however it is drawn: rows of tags, columns of time, scores at the side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagger.tagging.waveform import envelope

if TYPE_CHECKING:
    from tagger.tagging.prediction import Prediction

Floats = npt.NDArray[np.float32]

N_TAGS = 20
# A picture has hardly more pixels across.
N_COLUMNS = 800
# Distances between marks of the time axis, in seconds; at most so many are shown.
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_MOST_MARKS = 8
_BLOCKS, _SPARKS = "▁▂▃▄▅▆▇█", 24


@dataclass(frozen=True)
class TaggramView:
    """A taggram, ready to be drawn.

    Parameters
    ----------
    title : str
        Name of the file; may be empty.
    seconds : float
        Length of the audio: what is shown is all of it.
    tags : tuple of str
        From top to bottom.
    scores : np.ndarray [shape=(n_tags,)]
        Of the whole clip.
    thresholds : np.ndarray [shape=(n_tags,)]
        Score from which each tag applies; NaN where there is none.
    marked : np.ndarray [shape=(n_tags,), dtype=bool]
        Tags that the clip carries, where that is known.
    cells : np.ndarray [shape=(n_tags, n_columns)]
        Scores over time, in columns of equal length; NaN where no window is.
    loudness : np.ndarray [shape=(n_columns,)], optional
        See `tagger.tagging.waveform.envelope`.
    """

    title: str
    seconds: float
    tags: tuple[str, ...]
    scores: Floats
    thresholds: Floats
    marked: npt.NDArray[np.bool_]
    cells: Floats
    loudness: Floats | None = None


def taggram_view(
    prediction: "Prediction",
    *,
    shown: Sequence[int] | None = None,
    marked: npt.NDArray[np.bool_] | None = None,
) -> TaggramView:
    """Choose what is drawn of a prediction.

    Parameters
    ----------
    prediction : Prediction
        All scores.
    shown : sequence of int, optional
        Tags, from top to bottom; default the `N_TAGS` with the highest scores of the clip.
    marked : np.ndarray [shape=(n_tags,), dtype=bool], optional
        Tags that the clip is known to carry.
    """
    order = np.argsort(-prediction.scores, kind="stable")[:N_TAGS] if shown is None else shown
    rows = np.asarray(order, dtype=np.intp)
    n_tags = len(prediction.tags)
    thresholds = prediction.thresholds
    if thresholds is None:
        thresholds = np.full(n_tags, np.nan, dtype=np.float32)
    known = np.zeros(n_tags, dtype=np.bool_) if marked is None else marked
    start = float(prediction.times[0]) if len(prediction.times) else 0.0
    seconds = max(start + prediction.seconds, 1e-3)
    cells = _cells(prediction, rows, seconds=seconds)
    path = Path(prediction.path)
    return TaggramView(
        title=path.name,
        seconds=seconds,
        tags=tuple(prediction.tags[row] for row in rows),
        scores=prediction.scores[rows],
        thresholds=thresholds[rows],
        marked=known[rows],
        cells=cells,
        # What was cut out of the middle of a file lies elsewhere in it.
        loudness=None if start else envelope(path, n_columns=N_COLUMNS, seconds=seconds),
    )


def strength(scores: Floats) -> Floats:
    """How strongly scores are coloured: low ones would hardly be seen by their own numbers."""
    strong: Floats = np.clip(scores, 0, 1) ** np.float32(0.7)
    return strong


def _cells(prediction: "Prediction", rows: npt.NDArray[np.intp], *, seconds: float) -> Floats:
    """Highest score of the windows that begin in each column, else of the one that covers it."""
    times, values = prediction.times, prediction.taggram[:, rows]
    if not len(times):
        return np.full((len(rows), N_COLUMNS), np.nan, dtype=np.float32)
    starts = np.arange(N_COLUMNS) * (seconds / N_COLUMNS)
    middles = starts + seconds / N_COLUMNS / 2
    window = np.searchsorted(times, middles, side="right") - 1
    # The last window may be cut short by the end of the audio; before and between there are gaps.
    covered = (window >= 0) & (middles < times[window] + prediction.window_seconds)
    found = np.where(covered[:, np.newaxis], values[np.maximum(window, 0)], np.nan)
    columns = np.minimum((times * (N_COLUMNS / seconds)).astype(int), N_COLUMNS - 1)
    highest = np.full_like(found, -np.inf)
    np.maximum.at(highest, columns, values)
    cells: Floats = np.where(np.isfinite(highest), highest, found).T.astype(np.float32)
    return cells


def sparklines(view: TaggramView) -> list[tuple[str, str, str]]:
    """Tag, score of the clip, and a line of blocks that are the higher the higher it scores."""
    parts = np.array_split(np.nan_to_num(view.cells), _SPARKS, axis=1)
    heights = np.stack([part.max(axis=1) for part in parts], axis=1)
    steps = np.minimum((heights * len(_BLOCKS)).astype(int), len(_BLOCKS) - 1)
    return [
        (tag, f"{score:.2f}", "".join(_BLOCKS[step] for step in row))
        for tag, score, row in zip(view.tags, view.scores, steps, strict=True)
    ]


def time_marks(seconds: float) -> list[tuple[float, str]]:
    """Choose the marks of a time axis: seconds, and their text as ``m:ss`` or ``h:mm:ss``.

    Parameters
    ----------
    seconds : float
        Length of the axis.
    """
    step = next((step for step in _STEPS if seconds / step <= _MOST_MARKS), 6 * 3600)
    return [(float(at), clock(at)) for at in range(0, int(seconds) + 1, step)]


def clock(seconds: float) -> str:
    """Write a time in whole seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
