"""Clip scores from the scores of a clip's windows, outside the network."""

import numpy as np
import numpy.typing as npt


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
