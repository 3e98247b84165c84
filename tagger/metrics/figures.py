"""Figures of merit of multi-label scores, over the tags that can be scored at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.metrics.columns import ArrayColumns, Columns

# Threshold of the binary accuracy that the report gives.
_ACCURACY_THRESHOLD = 0.5
# Arrays of a `MultilabelMetrics` besides the number of positives.
TAG_FIGURES = (
    "roc_auc",
    "pr_auc",
    "d_prime",
    "lift",
    "best_f1",
    "best_f1_threshold",
    "threshold",
    "precision",
    "recall",
    "f1",
)
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
    d_prime : np.ndarray [shape=(n_tags,), dtype=float64]
        Distance of two normal distributions of equal deviation, in deviations, that would have the
        tag's ROC-AUC; infinite for 1 and 0.
    lift : np.ndarray [shape=(n_tags,), dtype=float64]
        PR-AUC over the share of positives, which is what scores at random reach.
    best_f1, best_f1_threshold : np.ndarray [shape=(n_tags,), dtype=float64]
        Highest F1 of any threshold on these very clips, and that threshold.
    threshold : np.ndarray [shape=(n_tags,), dtype=float64]
        Threshold that the model brings along; NaN where it has none.
    precision, recall, f1 : np.ndarray [shape=(n_tags,), dtype=float64]
        At `threshold`; precision is 0 where nothing reaches it. NaN where there is no threshold,
        or no ROC-AUC.
    """

    roc_auc: npt.NDArray[np.float64]
    pr_auc: npt.NDArray[np.float64]
    n_positive: npt.NDArray[np.int64]
    summary: dict[str, Any]
    d_prime: npt.NDArray[np.float64]
    lift: npt.NDArray[np.float64]
    best_f1: npt.NDArray[np.float64]
    best_f1_threshold: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]

    @property
    def scored(self) -> npt.NDArray[np.intp]:
        """Tags that have positives and negatives."""
        return np.flatnonzero(~np.isnan(self.roc_auc))


def d_prime(roc_auc: float) -> float:
    """Sensitivity index of a ROC-AUC: sqrt(2) times the normal quantile of it.

    NaN stays NaN; 1 and 0 are infinitely far.
    """
    if math.isnan(roc_auc):
        return roc_auc
    if not 0 < roc_auc < 1:
        return math.inf if roc_auc >= 1 else -math.inf
    return math.sqrt(2) * NormalDist().inv_cdf(roc_auc)


def multilabel_metrics(
    labels: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.floating],
    *,
    thresholds: Sequence[float | None] | None = None,
) -> MultilabelMetrics:
    """ROC-AUC, PR-AUC (average precision) and what goes with them, per tag and averaged.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; finite.
    thresholds : sequence of float or None, optional
        Score from which the model says that each tag applies.

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
    return metrics_of_columns(ArrayColumns(labels, scores), thresholds=thresholds)


def metrics_of_columns(
    columns: Columns, *, thresholds: Sequence[float | None] | None = None
) -> MultilabelMetrics:
    """ROC-AUC, PR-AUC (average precision) and what goes with them, of any number of clips.

    A tag that no clip carries, or every clip, has no ROC-AUC; it is left out of all averages, and
    the summary says how many tags were scored. Beside a column of one tag no more than some
    million scores are in memory at a time.

    Parameters
    ----------
    columns : Columns
        Labels and scores, tag by tag.
    thresholds : sequence of float or None, optional
        Score from which the model says that each tag applies; None where it has none.

    Returns
    -------
    MultilabelMetrics
        The summary has ``roc_auc``, ``pr_auc`` and ``d_prime`` (of the averaged ROC-AUC), each
        ``_macro`` (mean over tags), ``_weighted`` (the same by the tags' positives) and ``_micro``
        (all decisions together); ``lift_macro`` and ``best_f1_macro``, the means over tags; at the
        given thresholds ``precision``, ``recall`` and ``f1``, in the same three ways, over the
        ``n_tags_thresholded`` scored tags that have one. NaN stands for what cannot be computed.
        Also ``n_tags``, ``n_tags_scored``, ``n_clips``, ``positive_rate``, and at 0.5
        ``binary_accuracy`` and ``hamming_loss``, each with ``_all_no`` for a model that says no to
        everything.

    Raises
    ------
    ValueError
        If there are no clips or no tags.
    """
    n_clips, n_tags = columns.shape
    if n_clips * n_tags == 0:
        raise ValueError("there are no clips or no tags to score")
    n_positive = np.zeros(n_tags, dtype=np.int64)
    per_tag = {name: np.full(n_tags, np.nan) for name in TAG_FIGURES}
    if thresholds is not None:
        per_tag["threshold"][:] = [np.nan if value is None else value for value in thresholds]
    # Of each tag: scores that reach its threshold, and those of them that are right.
    said, hit = np.zeros(n_tags, dtype=np.int64), np.zeros(n_tags, dtype=np.int64)
    n_right = 0
    samples = []
    for tag in range(n_tags):
        labels, scores = columns.column(tag)
        n_positive[tag] = np.count_nonzero(labels)
        n_right += int(np.count_nonzero((scores >= _ACCURACY_THRESHOLD) == labels))
        if not 0 < n_positive[tag] < n_clips:
            continue
        groups = _groups_of_equal_scores(labels, scores)
        ranking = _Ranking.of(groups)
        per_tag["roc_auc"][tag] = ranking.roc_auc
        per_tag["pr_auc"][tag] = ranking.average_precision
        per_tag["best_f1"][tag], per_tag["best_f1_threshold"][tag] = groups.best_f1()
        samples.append(groups.sample(_SAMPLED_SCORES))
        threshold = per_tag["threshold"][tag]
        if not np.isnan(threshold):
            # In the type of the scores, as prediction compares them.
            reached = scores >= np.asarray(threshold, dtype=scores.dtype)
            said[tag] = np.count_nonzero(reached)
            hit[tag] = np.count_nonzero(reached & labels)
    scored = np.flatnonzero((n_positive > 0) & (n_positive < n_clips))
    per_tag["d_prime"][scored] = [d_prime(float(area)) for area in per_tag["roc_auc"][scored]]
    per_tag["lift"][scored] = per_tag["pr_auc"][scored] / (n_positive[scored] / n_clips)
    decided = scored[~np.isnan(per_tag["threshold"][scored])]
    for name, values in _decisions(said[decided], hit[decided], n_positive[decided]).items():
        per_tag[name][decided] = values
    micro = _micro_ranking(columns, scored, np.concatenate(samples)) if len(scored) else None
    summary: dict[str, Any] = {
        **_averages(per_tag, n_positive, scored, micro),
        **_averaged_decisions(per_tag, said, hit, n_positive, decided),
        "n_tags_thresholded": len(decided),
        "n_clips": n_clips,
        "n_tags": n_tags,
        "n_tags_scored": len(scored),
        "positive_rate": _positive_rate(n_positive[scored], n_clips),
        **_accuracies(n_right, int(n_positive.sum()), n_clips * n_tags),
    }
    return MultilabelMetrics(n_positive=n_positive, summary=summary, **per_tag)


def _positive_rate(n_positive: npt.NDArray[np.int64], n_clips: int) -> float:
    n_decisions = n_clips * len(n_positive)
    return int(n_positive.sum()) / n_decisions if n_decisions else float("nan")


def _accuracies(n_right: int, n_positive: int, n_decisions: int) -> dict[str, float]:
    """Over all tags, as the report has it, beside those of saying no to everything."""
    accuracy, all_no = n_right / n_decisions, 1 - n_positive / n_decisions
    return {
        "binary_accuracy": accuracy,
        "binary_accuracy_all_no": all_no,
        "hamming_loss": 1 - accuracy,
        "hamming_loss_all_no": 1 - all_no,
    }


def _mean(values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64] | None = None) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")


def _averages(
    per_tag: dict[str, npt.NDArray[np.float64]],
    n_positive: npt.NDArray[np.int64],
    scored: npt.NDArray[np.intp],
    micro: "_Ranking | None",
) -> dict[str, float]:
    support = n_positive[scored]
    summary = {}
    for name in ("roc_auc", "pr_auc"):
        summary[f"{name}_macro"] = _mean(per_tag[name][scored])
        summary[f"{name}_weighted"] = _mean(per_tag[name][scored], support)
    summary["roc_auc_micro"] = float("nan") if micro is None else micro.roc_auc
    summary["pr_auc_micro"] = float("nan") if micro is None else micro.average_precision
    for how in ("macro", "weighted", "micro"):
        # Not the mean over tags: a single tag with a ROC-AUC of 1 would make that infinite.
        summary[f"d_prime_{how}"] = d_prime(summary[f"roc_auc_{how}"])
    return summary | {f"{name}_macro": _mean(per_tag[name][scored]) for name in ("lift", "best_f1")}


def _decisions(
    said: npt.NDArray[np.int64], hit: npt.NDArray[np.int64], n_positive: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Precision, recall and F1 of decisions: yes said, yes said rightly, positives."""
    return {
        "precision": hit / np.maximum(said, 1),
        "recall": hit / np.maximum(n_positive, 1),
        "f1": 2 * hit / np.maximum(said + n_positive, 1),
    }


def _averaged_decisions(
    per_tag: dict[str, npt.NDArray[np.float64]],
    said: npt.NDArray[np.int64],
    hit: npt.NDArray[np.int64],
    n_positive: npt.NDArray[np.int64],
    decided: npt.NDArray[np.intp],
) -> dict[str, float]:
    support = n_positive[decided]
    totals = [np.array([counts[decided].sum()]) for counts in (said, hit, n_positive)]
    together = _decisions(*totals)
    summary = {}
    for name in together:
        summary[f"{name}_macro"] = _mean(per_tag[name][decided])
        summary[f"{name}_weighted"] = _mean(per_tag[name][decided], support)
        summary[f"{name}_micro"] = float(together[name][0]) if len(decided) else float("nan")
    return summary


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

    def best_f1(self) -> tuple[float, float]:
        """Highest F1 of any threshold, and the threshold (see `best_f1_thresholds`)."""
        hits = np.cumsum(self.n_positive)
        taken = np.cumsum(self.n_all)
        # F1 of taking the first n: 2 hits / (n taken + n positive).
        f1 = 2 * hits / (taken + hits[-1])
        last = int(np.argmax(f1))
        return float(f1[last]), self.cut_below(last)

    def cut_below(self, last: int) -> float:
        """Threshold that takes the groups up to `last` and no more, in the type of the scores."""
        lowest = float(self.values[last])
        if last + 1 < len(self.values):
            following = float(self.values[last + 1])
            middle = (lowest + following) / 2
            # Between neighbours of the type it is rounded to one of them, maybe the wrong one.
            return middle if float(self.values.dtype.type(middle)) > following else lowest
        # Where all are taken, half-way to the lowest score there can be.
        return lowest / 2 if lowest > 0 else lowest


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

    @classmethod
    def of(cls, groups: _Groups) -> "_Ranking":
        """All scores at once."""
        ranking = cls()
        ranking.add(groups)
        return ranking

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
        Half-way between the lowest score that is taken and the highest that is not, or the former
        where nothing lies between. None for a tag without positives or without negatives.
    """
    thresholds: list[float | None] = []
    for tag in range(scores.shape[1]):
        positive = labels[:, tag] != 0
        if not 0 < np.count_nonzero(positive) < len(positive):
            thresholds.append(None)
            continue
        groups = _groups_of_equal_scores(positive, scores[:, tag])
        thresholds.append(groups.best_f1()[1])
    return thresholds


def thresholds_for_precision(
    labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating], precision: float
) -> list[float | None]:
    """Threshold of each tag from which on that share of what is said is right.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags)]
        What a model says; finite.
    precision : float
        Target precision, above 0 and at most 1.

    Returns
    -------
    list of float or None
        Of all thresholds that reach the precision, the one with the highest recall; where none
        does, the one whose precision is highest. None for a tag without positives or negatives.
    """
    thresholds: list[float | None] = []
    for tag in range(scores.shape[1]):
        positive = labels[:, tag] != 0
        if not 0 < np.count_nonzero(positive) < len(positive):
            thresholds.append(None)
            continue
        groups = _groups_of_equal_scores(positive, scores[:, tag])
        reached = np.cumsum(groups.n_positive) / np.cumsum(groups.n_all)
        enough = np.flatnonzero(reached >= precision)
        # Of equally high precisions the last: it has the higher recall.
        last = enough[-1] if len(enough) else len(reached) - 1 - int(np.argmax(reached[::-1]))
        thresholds.append(groups.cut_below(int(last)))
    return thresholds


def binary_cross_entropy(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]) -> float:
    """Mean binary cross-entropy (natural logarithm) over clips and tags."""
    clipped = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return float(-np.log(np.where(labels != 0, clipped, 1 - clipped)).mean())
