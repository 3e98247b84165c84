"""Fit a classifier to labelled rows: folds choose its parameters, then all rows are fitted."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.clips.splits.k_fold import folds_of
from tagger.base.errors import ConfigError
from tagger.classifiers.kinds import Classifier

Labels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

# Each candidate of a grid takes as many fits.
_FOLDS = 3
_STEP = "estimator"


@dataclass(frozen=True)
class FittedClassifier:
    """A pipeline of scikit-learn, and what it has to do with the columns of the labels.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Scaler, principal components where they are wanted, estimator. It takes float64.
    learned : np.ndarray [shape=(n_learned,), dtype=intp]
        Columns that it gives probabilities of: those that some rows carry and others do not.
    constant : np.ndarray [shape=(n_labels,), dtype=float64]
        Scores of the other columns; 0 of those that were learned.
    found : str
        What the folds have chosen, for people.
    """

    pipeline: Any
    learned: npt.NDArray[np.intp]
    constant: Doubles
    found: str

    def scores(self, features: npt.NDArray[np.floating]) -> Doubles:
        """Probabilities [shape=(n_rows, n_labels)] of features [shape=(n_rows, n_features)]."""
        probabilities = self.pipeline.predict_proba(features.astype(np.float64))
        scores = np.tile(self.constant, (len(features), 1))
        # Of a single tag scikit-learn gives its absence as well, first.
        scores[:, self.learned] = probabilities[:, -len(self.learned) :]
        return scores


def fit_classifier(
    classifier: Classifier,
    features: npt.NDArray[np.floating],
    labels: Labels,
    *,
    groups: Sequence[str],
    one_label: bool,
) -> FittedClassifier:
    """Choose the parameters of a classifier on grouped folds, and fit it to all rows.

    Labels take part in the choice if each fold leaves rows that carry them and rows that do not.
    If there are fewer of them than the task needs, the most careful parameters are taken.

    Parameters
    ----------
    classifier : Classifier
        Which one.
    features : np.ndarray [shape=(n_rows, n_features)]
        Of clips, or of their windows.
    labels : np.ndarray [shape=(n_rows, n_labels), dtype=uint8]
        1 where a row carries a label.
    groups : sequence of str
        Of each row: rows of a group are never on both sides of a fold.
    one_label : bool
        Each row carries exactly one label; otherwise each label is fitted against the rest.

    Raises
    ------
    ConfigError
        If no label is carried by some rows and not by others.
    """
    from sklearn.base import clone
    from threadpoolctl import threadpool_limits

    n_positive = labels.sum(axis=0, dtype=np.int64)
    learned = np.flatnonzero((n_positive > 0) & (n_positive < len(labels)))
    if not len(learned):
        raise ConfigError("no label is carried by some clips and not by others; add clips")
    rows = features.astype(np.float64)
    choice = _Choice.of(labels, _folds(labels, groups), one_label=one_label)
    smallest = min((len(others) for others, _ in choice.sides), default=len(rows))
    pipeline = _pipeline(classifier, rows, smallest=smallest, one_label=one_label)
    # Where labels are fitted one against the rest, the estimator lies in another one.
    prefix = f"{_STEP}__estimator__" if _by_label(classifier, one_label) else f"{_STEP}__"
    grid = {f"{prefix}{name}": [*some] for name, some in classifier.grid(smallest).items()}
    # Small products: threads would wait for one another longer than they multiply.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # Fits that end before they have converged are judged by the folds like any other.
        warnings.filterwarnings("ignore", module="sklearn")
        best, score = choice.best(pipeline, grid, rows, labels)
        pipeline = clone(pipeline).set_params(**best)
        if classifier.is_margin:
            _calibrate(pipeline, groups)
        pipeline.fit(rows, _target(labels[:, learned], one_label=one_label))
    found = ", ".join(f"{name.removeprefix(prefix)} {value:g}" for name, value in best.items())
    if score is not None:
        found += f" ({'accuracy' if one_label else 'PR-AUC'} {score:.3f} in its folds)"
    never = n_positive == 0
    share = np.where(never & one_label, 0.0, (n_positive + 0.5) / (len(labels) + 1))
    share[learned] = 0.0
    return FittedClassifier(pipeline, learned, share, found)


def _folds(labels: Labels, groups: Sequence[str]) -> npt.NDArray[np.intp]:
    """Fold of each row; a single one where there is but one group."""
    n_folds = min(_FOLDS, len(set(groups)))
    return folds_of(labels, list(groups), n_folds=n_folds, seed=0)


def _pipeline(classifier: Classifier, rows: Doubles, *, smallest: int, one_label: bool) -> Any:
    """Scaler, principal components and estimator, not fitted yet."""
    from sklearn.decomposition import PCA
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps: list[tuple[str, Any]] = [("scaler", StandardScaler())]
    if classifier.params.pca is not None:
        n_components = min(classifier.params.pca, smallest, rows.shape[1])
        # scikit-learn (1.5 and newer) settles the signs by the components themselves.
        steps.append(("pca", PCA(n_components, random_state=0)))
    if classifier.is_float32:
        from skl2onnx.sklapi import CastTransformer

        # Trees compare float32 with their thresholds: rounded here, so that ONNX rounds alike.
        steps.append(("float32", CastTransformer(dtype=np.float32)))
    estimator = classifier.estimator()
    if _by_label(classifier, one_label):
        estimator = OneVsRestClassifier(estimator)
    return Pipeline([*steps, (_STEP, estimator)])


def _by_label(classifier: Classifier, one_label: bool) -> bool:
    """Whether each label is fitted against the rest."""
    return classifier.is_margin or not one_label


def _target(labels: Labels, *, one_label: bool) -> npt.NDArray[Any]:
    """Labels as scikit-learn wants them: their numbers, or a column for each."""
    return labels.argmax(axis=1) if one_label else labels.astype(np.int64)


@dataclass(frozen=True)
class _Choice:
    """What parameters are chosen on: labels of which each fold leaves some rows and not all.

    Parameters
    ----------
    rows : np.ndarray [dtype=bool]
        Rows that take part.
    columns : np.ndarray [dtype=bool]
        Labels that take part.
    sides : list of tuple of np.ndarray
        For each fold, those of these rows that are fitted and those that are tested; empty where
        nothing can be chosen.
    """

    rows: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.bool_]
    sides: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]
    one_label: bool

    @classmethod
    def of(cls, labels: Labels, folds: npt.NDArray[np.intp], *, one_label: bool) -> "_Choice":
        sides = [labels[folds != fold] for fold in np.unique(folds)]
        some = np.stack([side.any(axis=0) & ~side.all(axis=0) for side in sides])
        columns = np.logical_and.reduce(some)
        rows: npt.NDArray[np.bool_] = np.ones(len(labels), dtype=np.bool_)
        if one_label:
            rows = labels[:, columns].sum(axis=1) > 0
        if columns.sum() < (2 if one_label else 1):
            return cls(rows, columns, [], one_label)
        taken = folds[rows]
        return cls(rows, columns, [_sides(taken, fold) for fold in np.unique(folds)], one_label)

    def best(
        self, pipeline: Any, grid: dict[str, list[Any]], rows: Doubles, labels: Labels
    ) -> tuple[dict[str, Any], float | None]:
        """Parameters that are best on the folds, and how good they are, if that was asked."""
        from sklearn.model_selection import GridSearchCV

        if not self.sides or all(len(values) == 1 for values in grid.values()):
            return {name: values[0] for name, values in grid.items()}, None
        search = GridSearchCV(
            pipeline,
            grid,
            scoring="accuracy" if self.one_label else _average_precision,
            cv=self.sides,
            refit=False,
        )
        target = _target(labels[self.rows][:, self.columns], one_label=self.one_label)
        search.fit(rows[self.rows], target)
        return search.best_params_, float(search.best_score_)


def _sides(
    folds: npt.NDArray[np.intp], fold: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def _average_precision(model: Any, rows: Doubles, labels: Labels) -> float:
    """Mean over the labels that some of these rows carry; 0 if there is none."""
    from sklearn.metrics import average_precision_score

    score = getattr(model, "decision_function", None) or model.predict_proba
    values = score(rows).reshape(len(rows), -1)[:, -labels.shape[1] :]
    found = [
        average_precision_score(labels[:, column], values[:, column])
        for column in np.flatnonzero(labels.any(axis=0))
    ]
    return float(np.mean(found)) if found else 0.0


class _GroupedFolds:
    """Folds for the sigmoid of one label against the rest, dealt by that label.

    Where a fold would leave rows of one kind alone there are none, and the sigmoid is fitted to the
    rows that the estimator was fitted to.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return _FOLDS

    def split(
        self, X: Any, y: npt.NDArray[Any], groups: Any = None
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        folds = _folds((y == y.max()).astype(np.uint8)[:, np.newaxis], self._groups)
        sides = [_sides(folds, fold) for fold in np.unique(folds)]
        if all(len(set(y[others].tolist())) == 2 for others, _ in sides):
            yield from sides
        else:
            yield np.arange(len(y)), np.arange(len(y))


def _calibrate(pipeline: Any, groups: Sequence[str]) -> None:
    """Put a sigmoid behind the estimator of a pipeline that is not fitted yet."""
    from sklearn.calibration import CalibratedClassifierCV

    each = pipeline[_STEP].estimator
    calibrated = CalibratedClassifierCV(each, ensemble=False, cv=_GroupedFolds(groups))
    pipeline[_STEP].set_params(estimator=calibrated)
