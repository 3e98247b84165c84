"""A linear layer on a clip's embeddings over time, fitted after the network has learned.

A patch of 0.96 s has a tag in it or it has not, and a mean of such scores knows no more. Mean,
maximum and deviation over time of the embeddings behind them tell what goes on throughout a clip,
what occurs in it and what changes, and a linear layer on all three learns which a tag asks for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tagger.base.registry import Params
from tagger.scoring.clip_heads import ClipHead, Labels
from tagger.scoring.clip_heads._statistics import N_STATISTICS, statistics
from tagger.scoring.clip_heads._stretches import around_windows, stretch_length
from tagger.scoring.scorer import Floats

# Weights of the penalty, the strongest first: each fit starts from the one before. The one whose
# scores of the validation clips cost least is taken.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
# Of the largest square: shorter axes are rounding.
_NO_AXIS = 1e-12
_MAX_STEPS = 300
# Relative change of the cost at which a fit ends.
_TOLERANCE = 1e-7
# Features of all clips from which several threads are faster.
_MANY = 4_000_000
# Standard deviation below which a feature counts as constant.
_CONSTANT = 1e-6
_EPSILON = 1e-7
# Bias, before the softmax, of a label without clips.
_NEVER = -30.0
# Stretches whose statistics are computed together: their embeddings are copied.
_STRETCHES_AT_ONCE = 256


class LinearParams(Params):
    """Parameters of the linear clip head."""

    layers: Annotated[
        tuple[str, ...], Field(min_length=1, description="names of the embeddings")
    ] = ("pooled", "penultimate")
    link: Annotated[
        Literal["sigmoid", "softmax"], Field(description="softmax where tags exclude one another")
    ] = "sigmoid"


class Linear(ClipHead):
    """A linear layer on statistics of embeddings over time, with a sigmoid or a softmax.

    Attributes
    ----------
    weights : np.ndarray [shape=(n_features, n_tags), dtype=float32]
        Of the features as they are.
    bias : np.ndarray [shape=(n_tags,), dtype=float32]
        Of the tags.
    penalty : float
        Of `PENALTIES`, the one that was taken by the last `fit`.
    """

    Params = LinearParams
    params: LinearParams
    weights: Floats
    bias: Floats
    penalty: float

    @property
    def outputs(self) -> tuple[str, ...]:  # noqa: D102 (the contract documents it)
        return self.params.layers

    def features(self, outputs: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Mean, maximum and deviation over time: all three of the first layer, then of the next."""
        return statistics(outputs, self.params.layers)

    def scores(self, features: Floats) -> Floats:  # noqa: D102
        logits = features.astype(np.float64) @ self.weights + self.bias
        if self.params.link == "softmax":
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
        # Without an overflow in either tail.
        scores: Floats = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
        return scores

    def over_time(  # noqa: D102
        self, outputs: Mapping[str, npt.NDArray[np.floating]], *, hop_seconds: float
    ) -> Floats:
        n_windows = len(outputs[self.params.layers[0]])
        length = stretch_length(n_windows, hop_seconds)
        n_stretches = n_windows - length + 1
        scores = []
        for first in range(0, n_stretches, _STRETCHES_AT_ONCE):
            last = min(first + _STRETCHES_AT_ONCE, n_stretches) + length - 1
            features = []
            for layer in self.params.layers:
                values = outputs[layer][first:last].astype(np.float64)
                stretches = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
                features += [f(axis=-1) for f in (stretches.mean, stretches.max, stretches.std)]
            scores.append(self.scores(np.concatenate(features, axis=1).astype(np.float32)))
        return around_windows(np.concatenate(scores), n_windows, length)

    def fit(
        self,
        features: Floats,
        labels: Labels,
        *,
        validation: tuple[Floats, Labels],
        groups: Sequence[str] = (),
    ) -> str:
        """Fit with each of `PENALTIES`, and take the one that is best on the validation clips.

        A tag that no training clip carries, or all of them, is given how often it occurs.
        """
        del groups
        best = min(self.fits(features, labels), key=lambda head: head.loss(*validation))
        self.weights, self.bias, self.penalty = best.weights, best.bias, best.penalty
        return self.describe()

    def fits(
        self, features: Floats, labels: Labels, *, groups: Sequence[str] = ()
    ) -> Iterator["Linear"]:
        """As of `ClipHead.fits`: one for each of `PENALTIES`."""
        del groups
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > _CONSTANT, deviation, np.inf)
        n_positive = labels.sum(axis=0, dtype=np.int64)
        learned = (n_positive > 0) & (n_positive < len(labels))
        share = (n_positive + 0.5) / (len(labels) + 1)
        softmax = self.params.link == "softmax"
        solutions = logistic_regressions(
            (features - mean) / scale,
            labels[:, learned].astype(np.float64),
            penalties=PENALTIES,
            softmax=softmax,
        )
        for penalty, solution in zip(PENALTIES, solutions, strict=True):
            head = Linear(self.params)
            weights = np.zeros((features.shape[1], labels.shape[1]))
            weights[:, learned] = solution[:-1] / scale[:, np.newaxis]
            # Beside labels that exclude it, one that never occurred must not come first.
            bias = np.full(labels.shape[1], _NEVER) if softmax else np.log(share / (1 - share))
            bias[learned] = solution[-1] - mean @ weights[:, learned]
            head.weights, head.bias = weights.astype(np.float32), bias.astype(np.float32)
            head.penalty = penalty
            yield head

    def loss(self, features: Floats, labels: Labels) -> float:
        """As of `ClipHead.loss`: cross-entropy."""
        scores = self.scores(features).astype(np.float64)
        if self.params.link == "softmax":
            return float(-np.log(np.maximum(scores[labels == 1], _EPSILON)).mean())
        likely = np.where(labels == 1, scores, 1 - scores)
        return float(-np.log(np.maximum(likely, _EPSILON)).mean())

    def describe(self) -> str:  # noqa: D102
        return f"penalty {self.penalty:g}"

    def arrays(self) -> dict[str, npt.NDArray[Any]]:  # noqa: D102
        return {"weights": self.weights, "bias": self.bias}

    def restore(  # noqa: D102
        self, arrays: Mapping[str, npt.NDArray[Any]], *, sizes: Mapping[str, int], n_tags: int
    ) -> None:
        weights, bias = arrays["weights"], arrays["bias"]
        shape = (N_STATISTICS * sum(sizes[layer] for layer in self.params.layers), n_tags)
        if not (
            weights.shape == shape
            and bias.shape == (n_tags,)
            and weights.dtype == bias.dtype == np.float32
            and bool(np.isfinite(weights).all() and np.isfinite(bias).all())
        ):
            raise ValueError(f"weights and bias are not finite numbers of {shape}")
        self.weights, self.bias = weights, bias


def logistic_regressions(
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.float64],
    *,
    penalties: Sequence[float],
    softmax: bool = False,
) -> Iterator[npt.NDArray[np.float64]]:
    """Logistic regressions of many tags on the same features, all at once.

    Minimises, for each tag, the mean cross-entropy over the clips plus ``penalty / 2`` times the
    squared length of its weights; the bias is free. This is scikit-learn's regression with
    ``C = 1 / (n_clips * penalty)``, which takes one tag at a time.

    Parameters
    ----------
    features : np.ndarray [shape=(n_clips, n_features)]
        Standardised.
    labels : np.ndarray [shape=(n_clips, n_tags)]
        0 or 1; both occur of each tag.
    penalties : sequence of float
        Positive; fastest with the strongest first, as each fit starts from the one before.
    softmax : bool
        One regression of labels of which each clip has one, in place of one for each tag.

    Yields
    ------
    np.ndarray [shape=(n_features + 1, n_tags)]
        Weights, and the bias in the last row: one for each penalty.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    axes = None
    curvature = np.ones(features.shape[1])
    if features.shape[1] > len(features):
        # Only the space that the clips span takes part, and lengths in it are the same.
        values, axes = _spanned(features)
        features = features @ axes.T
        # Of the cross-entropy along each axis, at the most.
        curvature = values**2 / (4 * len(features))
    n_clips, n_features = features.shape
    solution = np.zeros((n_features + 1, labels.shape[1]))
    for penalty in penalties:
        # Lengths in which the cost bends alike along all axes: a tenth of the steps.
        unit = np.append(np.sqrt(curvature + penalty) if axes is not None else curvature, 1.0)
        cost = _Cost(features / unit[:-1], labels, penalty / unit[:-1] ** 2, softmax=softmax)
        # Threads would wait for one another longer than they multiply.
        with threadpool_limits(1 if n_clips * n_features < _MANY else None, user_api="blas"):
            found = minimize(
                cost,
                (solution * unit[:, np.newaxis]).ravel(),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": _MAX_STEPS, "ftol": _TOLERANCE},
            )
        solution = found.x.reshape(solution.shape) / unit[:, np.newaxis]
        weights = solution[:-1] if axes is None else axes.T @ solution[:-1]
        yield np.concatenate([weights, solution[-1:]])


def _spanned(
    features: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Singular values, and axes [shape=(n_axes, n_features)] of the space that rows span.

    Of the products of the rows, which are fewer than the columns: ten times as fast as a singular
    value decomposition, and as good but for axes along which the rows hardly differ.
    """
    squares, left = np.linalg.eigh(features @ features.T)
    kept = squares > squares[-1] * _NO_AXIS
    values = np.sqrt(squares[kept])
    return values, (features.T @ (left[:, kept] / values)).T


class _Cost:
    """What a logistic regression minimises, and its slope; `penalty` is that of each feature."""

    def __init__(
        self,
        features: npt.NDArray[np.float64],
        labels: npt.NDArray[np.float64],
        penalty: npt.NDArray[np.float64],
        *,
        softmax: bool,
    ) -> None:
        self._features, self._labels, self._softmax = features, labels, softmax
        self._penalty = penalty[:, np.newaxis]

    def __call__(self, flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        from scipy.special import expit, logsumexp

        features, labels = self._features, self._labels
        weights = flat.reshape(features.shape[1] + 1, labels.shape[1])
        logits = features @ weights[:-1] + weights[-1]
        # log(1 + e^z) - y z, or log sum e^z - y z, without an overflow.
        if self._softmax:
            total = logsumexp(logits, axis=1, keepdims=True)
            loss = total.sum() - (labels * logits).sum()
            error = (np.exp(logits - total) - labels) / len(labels)
        else:
            loss = (np.logaddexp(0, logits) - labels * logits).sum()
            error = (expit(logits) - labels) / len(labels)
        bent = self._penalty * weights[:-1]
        slope = np.concatenate([features.T @ error + bent, error.sum(axis=0)[np.newaxis]])
        return float(loss) / len(labels) + 0.5 * float((bent * weights[:-1]).sum()), slope.ravel()


ENTRY = Linear
