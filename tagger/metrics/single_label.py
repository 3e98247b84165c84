"""Figures of merit where each clip has one label, e.g. its genre, with bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.metrics.bootstrap import Draws, interval_ends, plan_draws, resample
from tagger.metrics.columns import ArrayColumns
from tagger.metrics.figures import metrics_of_columns

Floats = npt.NDArray[np.float64]

N_TOP = 3
# Figures in the order in which they are shown, with what people call them.
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision, macro",
    "recall_macro": "recall, macro",
    "f1_macro": "F1, macro",
    "top_3": f"right label among the first {N_TOP}",
    "roc_auc_macro": "ROC-AUC, macro, one against the rest",
    "pr_auc_macro": "PR-AUC, macro, one against the rest",
    "log_loss": "log loss (lower is better)",
}
# Probabilities are kept this far from 0, as scikit-learn does in float32.
_EPSILON = 1e-7
_DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class LabelFigures:
    """What labels and scores tell of clips with one label each.

    Parameters
    ----------
    matrix : np.ndarray [shape=(n_labels, n_labels), dtype=int64]
        Confusion matrix: clips by their label (row) and by what was said (column).
    summary : dict of str to float
        The figures of `TITLES`; NaN where one cannot be computed.
    intervals : dict of str to tuple of (float, float)
        95 % bootstrap intervals of these; empty where nothing was drawn.
    majority : dict of str to float
        The same figures of saying the most frequent label of these clips each time.
    precision, recall, f1, roc_auc, pr_auc : np.ndarray [shape=(n_labels,), dtype=float64]
        Of each label; NaN where no clip has it.
    draws : Draws
        How clips were drawn for the intervals.
    """

    matrix: npt.NDArray[np.int64]
    summary: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    majority: dict[str, float]
    precision: Floats
    recall: Floats
    f1: Floats
    roc_auc: Floats
    pr_auc: Floats
    draws: Draws

    @property
    def n_clips(self) -> int:
        """Clips in all."""
        return int(self.matrix.sum())

    def confused(self, n: int) -> list[tuple[int, int, int]]:
        """Label, what was said instead, and on how many clips: the pairs with most clips."""
        wrong = self.matrix - np.diag(np.diag(self.matrix))
        order = np.argsort(-wrong, axis=None, kind="stable")[:n]
        pairs = [divmod(int(place), len(wrong)) for place in order]
        return [
            (row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]
        ]


def label_of_clips(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Column of each clip's label [shape=(n_clips,)].

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_labels)]
        1 in the column of a clip's label, 0 elsewhere.

    Raises
    ------
    ValueError
        If a clip has no label, or several.
    """
    counts = (labels != 0).sum(axis=1)
    if not (counts == 1).all():
        row = int(np.flatnonzero(counts != 1)[0])
        raise ValueError(
            f"clip {row + 1} has {counts[row]} labels; give each clip one, or use the task "
            "multilabel"
        )
    found: npt.NDArray[np.intp] = (labels != 0).argmax(axis=1)
    return found


def single_label_figures(
    labels: npt.NDArray[np.generic],
    scores: npt.NDArray[np.floating],
    *,
    artists: Sequence[str] = (),
    n_draws: int = 0,
    seed: int = 0,
) -> LabelFigures:
    """Accuracy and what goes with it: what is said of a clip is the label of its highest score.

    Macro figures are means over the labels that these clips have. A label that is never said has
    the precision 0.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_labels)]
        1 in the column of a clip's label, 0 elsewhere.
    scores : np.ndarray [shape=(n_clips, n_labels)]
        What a model says; finite. For the log loss each clip's are divided by their sum.
    artists : sequence of str
        Of the clips, where they are known: they are drawn together.
    n_draws, seed : int
        Of the bootstrap; 0 draws for no intervals.

    Raises
    ------
    ValueError
        If there are no clips, or one has not exactly one label.
    """
    columns = ArrayColumns(labels, scores)
    n_clips, n_labels = columns.shape
    if not n_clips:
        raise ValueError("there are no clips")
    draws = plan_draws(n_clips, n_labels, artists=artists, n=n_draws, seed=seed)
    summary, drawn = resample_labels(columns, draws)
    intervals: dict[str, tuple[float, float]] = {}
    for name, values in drawn.items():
        highest = np.inf if name == "log_loss" else 1.0
        low, high = interval_ends(values, np.array(summary[name]), limits=(0, highest))
        intervals[name] = (float(low), float(high))
    clips = _Clips(label_of_clips(labels), columns.scores)
    areas = metrics_of_columns(columns)
    matrix = clips.matrix
    precision, recall, f1 = _rates(matrix[np.newaxis].astype(np.float64))
    known = matrix.sum(axis=1) > 0
    return LabelFigures(
        matrix=matrix,
        summary=summary,
        intervals=intervals,
        majority=_majority(matrix.sum(axis=1)),
        precision=np.where(known, precision[0], np.nan),
        recall=np.where(known, recall[0], np.nan),
        f1=np.where(known, f1[0], np.nan),
        roc_auc=areas.roc_auc,
        pr_auc=areas.pr_auc,
        draws=draws,
    )


def resample_labels(
    columns: ArrayColumns, draws: Draws
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Figures of `TITLES` of all clips, and of each draw.

    Parameters
    ----------
    columns : ArrayColumns
        Labels, of which each clip has one, and scores.
    draws : Draws
        How clips are drawn.

    Returns
    -------
    points : dict of str to float
        Of all clips.
    drawn : dict of str to np.ndarray [shape=(n_draws,)]
        Of the draws; empty without any.

    Raises
    ------
    ValueError
        If a clip has not exactly one label.
    """
    clips = _Clips(label_of_clips(columns.labels), columns.scores)
    areas = metrics_of_columns(columns)
    points = {
        name: float(values[0])
        for name, values in clips.figures(np.ones((columns.shape[0], 1), dtype=np.uint8)).items()
    }
    macro = ("roc_auc_macro", "pr_auc_macro")
    points |= {name: float(areas.summary[name]) for name in macro}
    points = {name: points[name] for name in TITLES}
    if not draws.n:
        return points, {}
    parts = [clips.figures(part) for part in draws.weights(_DRAWS_AT_ONCE)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    (of_areas,) = resample([columns], draws, tags=areas.scored)
    drawn |= {name: of_areas.summary[name] for name in macro}
    return points, {name: drawn[name] for name in TITLES}


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test: whether two models are right on equally many clips.

    Parameters
    ----------
    first, second : np.ndarray [shape=(n_clips,), dtype=bool]
        Whether each model is right.

    Returns
    -------
    tuple of (int, int, float)
        Clips on which the first alone is right, and the second alone; and how often equal models
        would differ by as much: two-sided, from the binomial distribution (McNemar 1947).
    """
    n_first = int((first & ~second).sum())
    n_second = int((second & ~first).sum())
    n = n_first + n_second
    tail = sum(math.comb(n, k) for k in range(min(n_first, n_second) + 1))
    return n_first, n_second, min(1.0, 2 * tail / 2**n)


class _Clips:
    """Labels and scores, ready for the figures of any weights of the clips."""

    def __init__(self, true: npt.NDArray[np.intp], scores: npt.NDArray[np.floating]) -> None:
        n_labels = scores.shape[1]
        said = scores.argmax(axis=1)
        self._shape = (n_labels, n_labels)
        self._pair = true * n_labels + said
        own = np.take_along_axis(scores, true[:, np.newaxis], axis=1)
        # Of equal scores the first comes first, as it does in what is said.
        before = np.arange(n_labels) < true[:, np.newaxis]
        ahead = ((scores > own) | ((scores == own) & before)).sum(axis=1)
        self._in_top = ahead < N_TOP
        self._loss = _log_losses(own[:, 0], scores)

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        counts = np.bincount(self._pair, minlength=self._shape[0] ** 2)
        return counts.reshape(self._shape).astype(np.int64)

    def figures(self, weights: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """All but the areas, of each draw; `weights` [shape=(n_clips, n_draws)]."""
        n_draws = weights.shape[1]
        matrices = np.zeros((self._shape[0] ** 2, n_draws))
        np.add.at(matrices, self._pair, weights)
        matrices = matrices.T.reshape(n_draws, *self._shape)
        precision, recall, f1 = _rates(matrices)
        support = matrices.sum(axis=2)
        known = support > 0
        total = support.sum(axis=1)
        n_known = known.sum(axis=1)

        def mean(values: Floats) -> Floats:
            found: Floats = (values * known).sum(axis=1) / n_known
            return found

        by_clip = weights.astype(np.float64).T
        top = by_clip @ self._in_top / total if self._shape[0] > N_TOP else np.full(n_draws, np.nan)
        return {
            "accuracy": np.trace(matrices, axis1=1, axis2=2) / total,
            "balanced_accuracy": mean(recall),
            "precision_macro": mean(precision),
            "recall_macro": mean(recall),
            "f1_macro": mean(f1),
            "top_3": top,
            "log_loss": by_clip @ self._loss / total,
        }


def _rates(matrices: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of each label [shape=(n_draws, n_labels)]; 0 for 0 of 0."""
    right = np.diagonal(matrices, axis1=1, axis2=2)
    said, support = matrices.sum(axis=1), matrices.sum(axis=2)
    precision = right / np.maximum(said, 1)
    recall = right / np.maximum(support, 1)
    return precision, recall, 2 * right / np.maximum(said + support, 1)


def _log_losses(own: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]) -> Floats:
    """Log loss of each clip; NaN where scores are no shares of anything."""
    total = scores.sum(axis=1, dtype=np.float64)
    if (scores < 0).any() or (total <= 0).any():
        return np.full(len(scores), np.nan)
    losses: Floats = -np.log(np.clip(own / total, _EPSILON, 1))
    return losses


def _majority(support: npt.NDArray[np.int64]) -> dict[str, float]:
    """Figures of saying the most frequent label each time, with the labels' shares as scores."""
    shares = np.sort(support[support > 0] / support.sum())[::-1]
    first, n_labels = float(shares[0]), len(shares)
    return {
        "accuracy": first,
        "balanced_accuracy": 1 / n_labels,
        "precision_macro": first / n_labels,
        "recall_macro": 1 / n_labels,
        "f1_macro": 2 * first / (1 + first) / n_labels,
        "top_3": float(shares[:N_TOP].sum()) if len(support) > N_TOP else float("nan"),
        "roc_auc_macro": 0.5 if n_labels > 1 else float("nan"),
        "pr_auc_macro": 1 / n_labels if n_labels > 1 else float("nan"),
        "log_loss": float(-(shares * np.log(shares)).sum()),
    }
