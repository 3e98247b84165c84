"""Figures of merit of multi-label scores, over the tags that can be scored at all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Threshold of the binary accuracy that the report gives.
_ACCURACY_THRESHOLD = 0.5
# Scores are kept this far from 0 and 1 in the cross-entropy, as Keras does.
_EPSILON = 1e-7


@dataclass(frozen=True)
class MultilabelMetrics:
    """Metrics of a set of clips.

    Parameters
    ----------
    roc_auc, pr_auc : np.ndarray [shape=(n_tags,), dtype=float64]
        Per tag; NaN for a tag without positives or without negatives.
    n_positive : np.ndarray [shape=(n_tags,), dtype=int64]
        Clips that carry each tag.
    summary : dict of str to float
        Averages over the tags that were scored, and the accuracies.
    """

    roc_auc: npt.NDArray[np.float64]
    pr_auc: npt.NDArray[np.float64]
    n_positive: npt.NDArray[np.int64]
    summary: dict[str, Any]


def multilabel_metrics(
    labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]
) -> MultilabelMetrics:
    """ROC-AUC and PR-AUC (average precision), per tag, macro and micro.

    A tag that no clip carries, or every clip, has no ROC-AUC; it is left out of all averages, and
    the summary says how many tags were scored.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; finite.

    Returns
    -------
    MultilabelMetrics
        The summary has ``roc_auc_macro``, ``pr_auc_macro``, ``roc_auc_micro``, ``pr_auc_micro``
        (NaN if no tag can be scored), ``n_tags``, ``n_tags_scored``, ``n_clips``,
        ``positive_rate``, ``binary_accuracy`` and ``binary_accuracy_all_no``.

    Raises
    ------
    ValueError
        If the shapes differ, there are no clips or a score is not finite.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape} and scores of shape {scores.shape}")
    if labels.size == 0:
        raise ValueError("there are no clips or no tags to score")
    if not np.isfinite(scores).all():
        raise ValueError("the scores hold NaN or infinity")
    labels = labels != 0
    n_clips, n_tags = labels.shape
    n_positive = labels.sum(axis=0, dtype=np.int64)
    scored = (n_positive > 0) & (n_positive < n_clips)
    roc_auc = np.full(n_tags, np.nan)
    pr_auc = np.full(n_tags, np.nan)
    for tag in np.flatnonzero(scored):
        roc_auc[tag] = roc_auc_score(labels[:, tag], scores[:, tag])
        pr_auc[tag] = average_precision_score(labels[:, tag], scores[:, tag])
    summary: dict[str, Any] = dict.fromkeys(
        ("roc_auc_macro", "pr_auc_macro", "roc_auc_micro", "pr_auc_micro"), float("nan")
    )
    if scored.any():
        flat_labels, flat_scores = labels[:, scored].ravel(), scores[:, scored].ravel()
        summary = {
            "roc_auc_macro": float(roc_auc[scored].mean()),
            "pr_auc_macro": float(pr_auc[scored].mean()),
            "roc_auc_micro": float(roc_auc_score(flat_labels, flat_scores)),
            "pr_auc_micro": float(average_precision_score(flat_labels, flat_scores)),
        }
    summary |= {
        "n_clips": n_clips,
        "n_tags": n_tags,
        "n_tags_scored": int(scored.sum()),
        "positive_rate": float(labels[:, scored].mean()) if scored.any() else float("nan"),
        # Over all tags, as the report has it, beside that of a model that answers no to everything.
        "binary_accuracy": float(((scores >= _ACCURACY_THRESHOLD) == labels).mean()),
        "binary_accuracy_all_no": float(1 - labels.mean()),
    }
    return MultilabelMetrics(roc_auc, pr_auc, n_positive, summary)


def best_f1_thresholds(
    labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]
) -> list[float | None]:
    """Threshold of each tag at which F1 is highest.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; finite.

    Returns
    -------
    list of float or None
        Half-way between the lowest score that is taken and the highest that is not. None for a tag
        without positives or without negatives.
    """
    thresholds: list[float | None] = []
    for tag in range(scores.shape[1]):
        order = np.argsort(-scores[:, tag], kind="stable")
        ranked = scores[order, tag].astype(np.float64)
        hits = np.cumsum(labels[order, tag] != 0)
        n_positive = int(hits[-1]) if len(hits) else 0
        if not 0 < n_positive < len(hits):
            thresholds.append(None)
            continue
        # F1 of taking the first n: 2 hits / (n taken + n positive).
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + n_positive)
        # A cut between two equal scores cannot be made.
        f1[:-1][ranked[:-1] == ranked[1:]] = -1.0
        last = int(np.argmax(f1))
        below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
        thresholds.append(float((ranked[last] + below) / 2))
    return thresholds


def binary_cross_entropy(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]) -> float:
    """Mean binary cross-entropy (natural logarithm) over clips and tags."""
    clipped = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return float(-np.log(np.where(labels != 0, clipped, 1 - clipped)).mean())
