"""What is shown of a prediction, whatever the output format: tags of a file or of its segments."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tagger.tagging.prediction import Prediction

SegmentMode = Literal["none", "windows", "merged"]

# Tags that are shown where nobody says how many.
DEFAULT_TOP = 10

# Score from which a tag applies where neither the user nor the model says.
DEFAULT_THRESHOLD = 0.5

# Windows less than this apart are neighbours: start times carry rounding errors.
_TOUCHING_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """One tag of a file or of a segment of it.

    Parameters
    ----------
    label : str
        The tag.
    score : float
        Between 0 and 1.
    start, end : float, optional
        Segment in seconds from the start of the file; None for a tag of the whole file.
    """

    label: str
    score: float
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The result for one input file.

    Parameters
    ----------
    path : str
        The file.
    seconds : float
        Length of the audio that was read; 0 for a file that failed.
    padded : bool
        The audio was shorter than a window and was padded.
    missing : float
        Share of the audio that is missing.
    rows : tuple of Row
        Tags that are shown, in the order in which they are shown.
    error : str, optional
        Why there is no result: one line with the remedy; None for a file that was tagged.
    """

    path: str
    seconds: float
    padded: bool
    rows: tuple[Row, ...]
    error: str | None = None
    missing: float = 0.0


@dataclass(frozen=True)
class Selection:
    """Which tags are shown.

    Parameters
    ----------
    top_k : int, optional
        At most so many tags: of a file, of each window, or with merged segments so many different
        ones. None: `DEFAULT_TOP`; of a model whose tags exclude one another, the one that it
        decides for.
    threshold : float, optional
        Only tags that score at least this. None: no threshold for whole files and windows; for
        merged segments the model's own thresholds.
    model_thresholds : bool
        Take the model's own threshold of each tag in place of `threshold`, and
        `DEFAULT_THRESHOLD` where it has none.
    segments : {"none", "windows", "merged"}
        Tags of the whole file, of each window, or of segments in which a tag lasts.
    """

    top_k: int | None = None
    threshold: float | None = None
    model_thresholds: bool = False
    segments: SegmentMode = "none"


def make_record(prediction: Prediction, selection: Selection) -> Record:
    """Choose what is shown of a prediction.

    Parameters
    ----------
    prediction : Prediction
        All scores of a file.
    selection : Selection
        What is asked for. `top_k` and the threshold do not depend on one another.

    Returns
    -------
    Record
        Whole file: a row per tag, highest score first. Windows: the same for each window, in
        their order. Merged: a row for each run of neighbouring windows in which a tag reaches its
        threshold, with the mean of their scores, sorted by start, then by score; ``top_k`` keeps
        of the tags that have a segment those with the highest scores of the whole file.
    """
    rows = {"none": _whole_file, "windows": _windows, "merged": _merged}[selection.segments]
    return Record(
        path=prediction.path,
        seconds=float(prediction.seconds),
        padded=bool(prediction.padded),
        rows=tuple(rows(prediction, selection)),
        missing=float(prediction.missing),
    )


def failed_record(path: str, message: str) -> Record:
    """Make the record of a file that could not be tagged, with the one-line reason."""
    return Record(path=path, seconds=0.0, padded=False, rows=(), error=message)


def _limits(prediction: Prediction, selection: Selection) -> npt.NDArray[np.float32] | None:
    """Threshold of each tag, or None for none at all."""
    n_tags = len(prediction.tags)
    if selection.model_thresholds or (
        selection.threshold is None and selection.segments == "merged"
    ):
        if prediction.thresholds is None:
            return np.full(n_tags, DEFAULT_THRESHOLD, np.float32)
        own = np.asarray(prediction.thresholds, np.float32)
        # A tag without positives in the data that thresholds were fitted to has none.
        return np.where(np.isnan(own), np.float32(DEFAULT_THRESHOLD), own)
    if selection.threshold is None:
        return None
    # In the type of the scores: one that is shown as 0.9 reaches a threshold of 0.9.
    return np.full(n_tags, selection.threshold, np.float32)


def _ranked(
    scores: npt.NDArray[np.float32], limits: npt.NDArray[np.float32] | None, top_k: int | None
) -> npt.NDArray[np.intp]:
    """Rank the tags whose scores reach their limits; equals keep the model's order."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return order if limits is None else order[scores[order] >= limits[order]]


def _whole_file(prediction: Prediction, selection: Selection) -> list[Row]:
    if _is_decision(prediction, selection):
        return [Row(*prediction.label)]
    scores = prediction.scores
    top_k = DEFAULT_TOP if selection.top_k is None else selection.top_k
    order = _ranked(scores, _limits(prediction, selection), top_k)
    return [Row(prediction.tags[tag], float(scores[tag])) for tag in order]


def _is_decision(prediction: Prediction, selection: Selection) -> bool:
    """Whether one label is wanted, and not how high several score."""
    asked = selection.top_k is not None or selection.threshold is not None
    return prediction.decides_one and not asked


def _window_ends(prediction: Prediction) -> npt.NDArray[np.float64]:
    """End of each window in seconds; the last ones may reach beyond the audio, and are cut."""
    times = prediction.times
    if not len(times):
        return times
    ends = np.minimum(times + prediction.window_seconds, times[0] + prediction.seconds)
    return np.maximum(ends, times)


def _windows(prediction: Prediction, selection: Selection) -> list[Row]:
    limits = _limits(prediction, selection)
    ends = _window_ends(prediction)
    top_k = 1 if _is_decision(prediction, selection) else selection.top_k or DEFAULT_TOP
    return [
        Row(prediction.tags[tag], float(scores[tag]), float(start), float(end))
        for scores, start, end in zip(prediction.taggram, prediction.times, ends, strict=True)
        for tag in _ranked(scores, limits, top_k)
    ]


def _merged(prediction: Prediction, selection: Selection) -> list[Row]:
    times, taggram = prediction.times, prediction.taggram
    ends = _window_ends(prediction)
    limits = _limits(prediction, selection)
    assert limits is not None, "merged segments always have thresholds"
    active = taggram >= limits
    order = _ranked(prediction.scores, None, None)
    shown = [tag for tag in order if active[:, tag].any()]
    shown = shown[: selection.top_k or DEFAULT_TOP]
    # Of window i and the next one: do they overlap or touch?
    touching = times[1:] <= times[:-1] + prediction.window_seconds + _TOUCHING_SECONDS
    rows = []
    for tag in shown:
        windows = np.flatnonzero(active[:, tag])
        breaks = np.flatnonzero((np.diff(windows) > 1) | ~touching[windows[:-1]]) + 1
        for run in np.split(windows, breaks):
            score = float(taggram[run, tag].mean(dtype=np.float64))
            rows.append(
                Row(prediction.tags[tag], score, float(times[run[0]]), float(ends[run[-1]]))
            )
    return sorted(rows, key=lambda row: (row.start, -row.score))
