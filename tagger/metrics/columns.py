"""Labels and scores of clips, which metrics read tag by tag."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Columns(Protocol):
    """What metrics read: checked labels and scores, tag by tag."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of clips and of tags."""

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        """Labels and scores of one tag [shape=(n_clips,)]."""


def check_rows(labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> None:
    """Raise a ValueError if these are no labels and scores of the same clips and tags."""
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape} and scores of shape {scores.shape}")
    if not (np.issubdtype(scores.dtype, np.floating) or np.issubdtype(scores.dtype, np.integer)):
        raise ValueError(f"the scores (est) are {scores.dtype}, not real numbers")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("the labels hold values other than 0 and 1")
    if not np.isfinite(scores).all():
        raise ValueError("the scores hold NaN or infinity")


def floating(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Type that scores are measured in: whole numbers as the smallest that holds them exactly.

    Between whole numbers there is no threshold, and the negative of an unsigned one is no lower.
    """
    given = np.dtype(dtype)
    return np.result_type(given, np.float32) if np.issubdtype(given, np.integer) else given


class ArrayColumns:
    """Labels and scores in arrays.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags)]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; whole numbers become floating point.

    Raises
    ------
    ValueError
        If the shapes differ, a label is neither 0 nor 1 or a score is not finite.
    """

    def __init__(self, labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> None:
        check_rows(labels, scores)
        self._labels = labels
        self._scores: npt.NDArray[np.floating] = scores.astype(floating(scores.dtype), copy=False)

    @property
    def labels(self) -> npt.NDArray[np.generic]:
        """Labels of all tags [shape=(n_clips, n_tags)]."""
        return self._labels

    @property
    def scores(self) -> npt.NDArray[np.floating]:
        """Scores of all tags [shape=(n_clips, n_tags)]."""
        return self._scores

    @property
    def shape(self) -> tuple[int, int]:
        """Number of clips and of tags."""
        n_clips, n_tags = self._labels.shape
        return n_clips, n_tags

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
        """Labels and scores of one tag."""
        return self._labels[:, tag] != 0, self._scores[:, tag]


def stacked(columns: Columns) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.floating]]:
    """Labels and scores of all tags, each [shape=(n_clips, n_tags)].

    Raises
    ------
    ValueError
        If there are no clips or no tags.
    """
    n_clips, n_tags = columns.shape
    if not n_clips or not n_tags:
        raise ValueError(f"there are no {'tags' if n_clips else 'clips'}")
    pairs = [columns.column(tag) for tag in range(n_tags)]
    return (
        np.stack([flags for flags, _ in pairs], axis=1).astype(np.uint8),
        np.stack([values for _, values in pairs], axis=1),
    )
