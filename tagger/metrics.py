"""Figures of merit of multi-label scores, over the tags that can be scored at all."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.score_table import ArrayColumns, Columns

# Threshold of the binary accuracy that the report gives.
_ACCURACY_THRESHOLD = 0.5
# Scores are kept this far from 0 and 1 in the cross-entropy, as Keras does.
_EPSILON = 1e-7
# Scores of all tags that are ranked together in memory.
_SCORES_AT_ONCE = 4_000_000
# Of each tag, to cut the scores of all tags into ranges.
_SAMPLED_SCORES = 512


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

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; finite.

    Returns
    -------
    MultilabelMetrics
        See `metrics_of_columns`.

    Raises
    ------
    ValueError
        If the shapes differ, there are no clips, a label is neither 0 nor 1 or a score is not
        finite.
    """
    return metrics_of_columns(ArrayColumns(labels, scores))


def metrics_of_columns(columns: Columns) -> MultilabelMetrics:
    """ROC-AUC and PR-AUC (average precision), per tag, macro and micro, of any number of clips.

    A tag that no clip carries, or every clip, has no ROC-AUC; it is left out of all averages, and
    the summary says how many tags were scored. Beside a column of one tag no more than some
    million scores are in memory at a time.

    Parameters
    ----------
    columns : Columns
        Labels and scores, tag by tag.

    Returns
    -------
    MultilabelMetrics
        The summary has ``roc_auc_macro``, ``pr_auc_macro``, ``roc_auc_micro``, ``pr_auc_micro``
        (NaN if no tag can be scored), ``n_tags``, ``n_tags_scored``, ``n_clips``,
        ``positive_rate``, ``binary_accuracy`` and ``binary_accuracy_all_no``.

    Raises
    ------
    ValueError
        If there are no clips or no tags.
    """
    n_clips, n_tags = columns.shape
    if n_clips * n_tags == 0:
        raise ValueError("there are no clips or no tags to score")
    n_positive = np.zeros(n_tags, dtype=np.int64)
    roc_auc = np.full(n_tags, np.nan)
    pr_auc = np.full(n_tags, np.nan)
    n_right = 0
    samples = []
    for tag in range(n_tags):
        labels, scores = columns.column(tag)
        n_positive[tag] = labels.sum()
        n_right += int(((scores >= _ACCURACY_THRESHOLD) == labels).sum())
        if not 0 < n_positive[tag] < n_clips:
            continue
        groups = _groups_of_equal_scores(labels, scores)
        ranking = _Ranking()
        ranking.add(groups)
        roc_auc[tag], pr_auc[tag] = ranking.roc_auc, ranking.average_precision
        samples.append(groups.sample(_SAMPLED_SCORES))
    scored = np.flatnonzero((n_positive > 0) & (n_positive < n_clips))
    summary: dict[str, Any] = dict.fromkeys(
        ("roc_auc_macro", "pr_auc_macro", "roc_auc_micro", "pr_auc_micro"), float("nan")
    )
    if len(scored):
        micro = _micro_ranking(columns, scored, np.concatenate(samples))
        summary = {
            "roc_auc_macro": float(roc_auc[scored].mean()),
            "pr_auc_macro": float(pr_auc[scored].mean()),
            "roc_auc_micro": micro.roc_auc,
            "pr_auc_micro": micro.average_precision,
        }
    n_scored = max(1, n_clips * len(scored))
    summary |= {
        "n_clips": n_clips,
        "n_tags": n_tags,
        "n_tags_scored": len(scored),
        "positive_rate": int(n_positive[scored].sum()) / n_scored if len(scored) else float("nan"),
        # Over all tags, as the report has it, beside that of a model that answers no to everything.
        "binary_accuracy": n_right / (n_clips * n_tags),
        "binary_accuracy_all_no": 1 - int(n_positive.sum()) / (n_clips * n_tags),
    }
    return MultilabelMetrics(roc_auc, pr_auc, n_positive, summary)


@dataclass(frozen=True)
class _Groups:
    """Scores that are equal, the highest first: how many there are, and how many positives."""

    values: npt.NDArray[np.floating]
    n_positive: npt.NDArray[np.int64]
    n_all: npt.NDArray[np.int64]

    def sample(self, most: int) -> npt.NDArray[np.floating]:
        """Take at most `most` of the values, equally many scores apart."""
        ends = np.cumsum(self.n_all)
        wanted = np.linspace(0, ends[-1], min(most, int(ends[-1])), endpoint=False)
        return self.values[np.searchsorted(ends, wanted, side="right")]


def _groups_of_equal_scores(
    labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> _Groups:
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    # Between scores that are equal no threshold can cut: they count together.
    ends = np.append(np.flatnonzero(ranked[:-1] != ranked[1:]), len(ranked) - 1)
    hits = np.cumsum(labels[order])[ends]
    return _Groups(ranked[ends], np.diff(hits, prepend=0), np.diff(ends, prepend=-1))


def _joined(groups: list[_Groups]) -> _Groups:
    """One ranking of several: equal scores of different tags become one group."""
    values = np.concatenate([group.values for group in groups])
    order = np.argsort(values)[::-1]
    ranked = values[order]
    starts = np.append(0, np.flatnonzero(ranked[:-1] != ranked[1:]) + 1)
    n_positive = np.concatenate([group.n_positive for group in groups])[order]
    n_all = np.concatenate([group.n_all for group in groups])[order]
    return _Groups(
        ranked[starts], np.add.reduceat(n_positive, starts), np.add.reduceat(n_all, starts)
    )


class _Ranking:
    """Areas under the ROC and precision-recall curves of scores that are added highest first."""

    def __init__(self) -> None:
        self._n_positive = 0
        self._n_all = 0
        self._roc_area = 0.0
        self._precisions = 0.0

    def add(self, groups: _Groups) -> None:
        hits = self._n_positive + np.cumsum(groups.n_positive)
        taken = self._n_all + np.cumsum(groups.n_all)
        # Trapezoids: of the positives that tie with a negative half count as above it (Fawcett, "An
        # introduction to ROC analysis", 2006).
        above = hits - groups.n_positive / 2
        self._roc_area += float(((groups.n_all - groups.n_positive) * above).sum())
        self._precisions += float((groups.n_positive * (hits / taken)).sum())
        self._n_positive, self._n_all = int(hits[-1]), int(taken[-1])

    @property
    def roc_auc(self) -> float:
        return self._roc_area / (self._n_positive * (self._n_all - self._n_positive))

    @property
    def average_precision(self) -> float:
        """Mean precision at the positives, without interpolation."""
        return self._precisions / self._n_positive


def _micro_ranking(
    columns: Columns, tags: npt.NDArray[np.intp], samples: npt.NDArray[np.floating]
) -> _Ranking:
    """Ranking of the scores of several tags together, from the highest range of them to the lowest.

    The ranges are cut between `samples`, so that each holds about as many scores as may be in
    memory at a time, or a single value.
    """
    n_scores = columns.shape[0] * len(tags)
    n_ranges = -(-n_scores // _SCORES_AT_ONCE)
    ordered = np.sort(samples)
    cuts = np.unique(ordered[np.arange(1, n_ranges) * len(ordered) // n_ranges])[::-1]
    ranking = _Ranking()
    for upper, lower in pairwise([None, *cuts, None]):
        groups = []
        for tag in tags:
            labels, scores = columns.column(int(tag))
            if len(cuts):
                within = np.ones(len(scores), dtype=bool) if upper is None else scores < upper
                if lower is not None:
                    within &= scores >= lower
                labels, scores = labels[within], scores[within]
            if len(scores):
                groups.append(_groups_of_equal_scores(labels, scores))
        if groups:
            ranking.add(_joined(groups))
    return ranking


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
