"""Clip scores from what the network says of a clip's windows, outside the network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.scoring.clip_head import ClipHead

# Output of the network of that name; all others are embeddings.
SCORES = "scores"


def clip_scores(
    window_scores: npt.NDArray[np.float32],
    how: str,
    *,
    alpha: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Aggregate over time.

    Parameters
    ----------
    window_scores : np.ndarray [shape=(n_windows, n_tags), dtype=float32]
        Scores of one clip's windows, at least one.
    how : str
        ``"mean"``, ``"max"`` or ``"autopool"``.
    alpha : np.ndarray [shape=(n_tags,)], optional
        Learned weights of AutoPool; needed by it alone.

    Returns
    -------
    np.ndarray [shape=(n_tags,), dtype=float32]
        Scores of the clip.
    """
    if how == "mean":
        return window_scores.mean(axis=0, dtype=np.float64).astype(np.float32)
    if how == "max":
        maximum: npt.NDArray[np.float32] = window_scores.max(axis=0)
        return maximum
    if how != "autopool":
        raise ValueError(f"unknown aggregation {how!r}")
    if alpha is None:
        raise ValueError("AutoPool needs its learned alpha")
    logits = alpha * window_scores.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=0))
    weights /= weights.sum(axis=0)
    pooled: npt.NDArray[np.float32] = (weights * window_scores).sum(axis=0).astype(np.float32)
    return pooled


@dataclass(frozen=True)
class ClipScorer:
    """How a model makes clip scores; the same in validation, evaluation and prediction.

    Parameters
    ----------
    aggregate : str
        What is done to the scores of windows where there is no clip head.
    alpha : np.ndarray [shape=(n_tags,)], optional
        Learned weights of AutoPool.
    head : ClipHead, optional
        What makes clip scores of embeddings instead.
    """

    aggregate: str
    alpha: npt.NDArray[np.float32] | None = None
    head: ClipHead | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of the network that `__call__` looks at."""
        return (SCORES,) if self.head is None else self.head.layers

    def __call__(self, outputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Scores of one clip [shape=(n_tags,), dtype=float32].

        Parameters
        ----------
        outputs : mapping of str to np.ndarray [shape=(n_windows, n_dimensions)]
            Of one clip's windows, at least one.
        """
        if self.head is not None:
            return self.head(outputs)
        return clip_scores(outputs[SCORES], self.aggregate, alpha=self.alpha)

    def over_time(
        self, outputs: Mapping[str, npt.NDArray[np.float32]], *, hop_seconds: float
    ) -> npt.NDArray[np.float32]:
        """Scores of each window [shape=(n_windows, n_tags)], by what scores the clip.

        Parameters
        ----------
        outputs
            As of `__call__`.
        hop_seconds : float
            From the start of a window to that of the next.
        """
        if self.head is not None:
            return self.head.over_time(outputs, hop_seconds=hop_seconds)
        return outputs[SCORES]
