"""What pictures of scores need beyond the metrics: precision over recall, and loss per clip."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tagger.evaluate.report.contents import Floats
from tagger.metrics.columns import Columns

# Recalls at which curves are drawn: finer than a picture shows.
RECALLS = np.linspace(0, 1, 201)
# Scores are kept this far from 0 and 1 in the cross-entropy, as Keras does.
_EPSILON = 1e-7


def precision_over_recall(
    labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> Floats:
    """Precision of one tag at each of `RECALLS`.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips,)]
        At least one is true.
    scores : np.ndarray [shape=(n_clips,)]
        What a model says.

    Returns
    -------
    np.ndarray [shape=(len(RECALLS),), dtype=float64]
        At the highest threshold that finds so much. The area below it, with exact steps, is the
        average precision.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Clips of equal scores are found together.
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    n_found = np.cumsum(labels[order], dtype=np.int64)[ends]
    # In whole clips: a recall of 0.3 is not to be missed by a rounding.
    wanted = np.maximum(1, np.ceil(RECALLS * n_found[-1] - 1e-9))
    places = np.searchsorted(n_found, wanted)
    precision: Floats = n_found[places] / (ends[places] + 1)
    return precision


def clip_losses(columns: Columns, tags: Iterable[int]) -> Floats:
    """Binary cross-entropy of each clip, mean over some tags.

    Parameters
    ----------
    columns : Columns
        Labels and scores; scores beyond 0 and 1 count as these.
    tags : iterable of int
        Columns that count.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=float64]
        In nats.
    """
    total = np.zeros(columns.shape[0])
    n_tags = 0
    for tag in tags:
        labels, scores = columns.column(tag)
        right = np.where(labels, scores, 1 - scores.astype(np.float64))
        total -= np.log(np.clip(right, _EPSILON, 1))
        n_tags += 1
    return total / max(1, n_tags)


def clips_of(columns: Columns, rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Labels and scores of some clips [shape=(len(rows), n_tags)]."""
    labels = np.zeros((len(rows), columns.shape[1]), dtype=np.bool_)
    scores = np.zeros((len(rows), columns.shape[1]))
    for tag in range(columns.shape[1]):
        column_labels, column_scores = columns.column(tag)
        labels[:, tag], scores[:, tag] = column_labels[rows], column_scores[rows]
    return labels, scores
