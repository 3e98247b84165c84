"""Calibration: how far scores are from being probabilities, and maps that bring them closer.

Nothing but NumPy is needed to apply a map, so that tagging can.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tagger.metrics.columns import Columns

Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "isotonic")
SCHEMA_VERSION = 1
# Bins of equal width from 0 to 1, as in Guo, Pleiss, Sun & Weinberger, "On calibration of modern
# neural networks" (ICML 2017).
N_BINS = 15
# Temperatures are sought between these: beyond, a few clips would decide.
_LOWEST, _HIGHEST = 0.05, 20.0
_HALVINGS = 60
# A tag needs so many clips that carry it, and so many that do not: of fewer, nearly any map fits.
LEAST_OF_EACH = 5
# Logits are kept within this: those of 0 and 1 have no end.
_LARGEST_LOGIT = 104.0
# Share of the score itself in every map: on levels of a curve, or where a sharp one comes close to
# 0 and 1, scores that differ would become equal, and cost ROC-AUC and PR-AUC. Far less than
# anything that calibration mends.
_OWN_SHARE = 1e-3

Scores = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Reliability:
    """Reliability curves: in each bin of scores, the mean score and the share of positives.

    Parameters
    ----------
    n_decisions, n_positive : np.ndarray [shape=(n_tags, n_bins), dtype=int64]
        Clips of each tag whose score is in the bin, and those of them that carry the tag.
    score_sum : np.ndarray [shape=(n_tags, n_bins), dtype=float64]
        Sum of their scores.
    """

    n_decisions: npt.NDArray[np.int64]
    n_positive: npt.NDArray[np.int64]
    score_sum: npt.NDArray[np.float64]

    @property
    def n_bins(self) -> int:
        """Bins of equal width between 0 and 1."""
        return int(self.n_decisions.shape[1])

    def curve(self, tags: Sequence[int] | npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Reliability curve of the decisions of some tags together.

        Returns
        -------
        np.ndarray [shape=(3, n_bins)]
            Mean score and share of positives (NaN in an empty bin), and number of decisions.
        """
        n_decisions = self.n_decisions[tags].sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.stack(
                [
                    self.score_sum[tags].sum(axis=0) / n_decisions,
                    self.n_positive[tags].sum(axis=0) / n_decisions,
                    n_decisions,
                ]
            )

    def errors(self) -> npt.NDArray[np.float64]:
        """Compute the expected calibration error of each tag [shape=(n_tags,)].

        It is the distance between mean score and share of positives, averaged over the decisions.
        """
        distance = np.abs(self.score_sum - self.n_positive)
        errors: npt.NDArray[np.float64] = distance.sum(axis=1) / self.n_decisions.sum(axis=1)
        return errors

    def error(self, tags: Sequence[int] | npt.NDArray[np.intp]) -> float:
        """Compute the expected calibration error of some tags together; NaN without any."""
        if not len(tags):
            return float("nan")
        distance = np.abs((self.score_sum[tags] - self.n_positive[tags]).sum(axis=0))
        return float(distance.sum() / self.n_decisions[tags].sum())

    def to_json(self, tags: Sequence[int] | npt.NDArray[np.intp]) -> dict[str, Any]:
        """Plain values, of some tags together and one by one."""
        mean, share, n_decisions = self.curve(tags)
        return {
            "bins": f"{self.n_bins} of equal width",
            "ece_micro": _plain(self.error(tags)),
            "ece_macro": _plain(float(self.errors()[tags].mean()) if len(tags) else float("nan")),
            "mean_score": [_plain(value) for value in mean],
            "positive_share": [_plain(value) for value in share],
            "n_decisions": [int(value) for value in n_decisions],
        }


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def measure_reliability(columns: Columns, *, n_bins: int = N_BINS) -> Reliability | None:
    """Reliability of scores, tag by tag; None where they are not all between 0 and 1."""
    n_tags = columns.shape[1]
    n_decisions = np.zeros((n_tags, n_bins), dtype=np.int64)
    n_positive = np.zeros_like(n_decisions)
    score_sum = np.zeros((n_tags, n_bins))
    for tag in range(n_tags):
        labels, scores = columns.column(tag)
        if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
            return None
        wide = scores.astype(np.float64)
        bins = np.minimum((wide * n_bins).astype(np.intp), n_bins - 1)
        n_decisions[tag] = np.bincount(bins, minlength=n_bins)
        n_positive[tag] = np.bincount(bins[labels], minlength=n_bins)
        score_sum[tag] = np.bincount(bins, weights=wide, minlength=n_bins)
    return Reliability(n_decisions, n_positive, score_sum)


class _Map(Protocol):
    """A curve that never falls from 0 to 1."""

    def __call__(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Values of the curve at scores."""

    def to_json(self) -> dict[str, Any]:
        """Plain values that make the map again."""


@dataclass(frozen=True)
class Temperature:
    """Logits divided by one number."""

    temperature: float

    def __call__(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # noqa: D102
        return _sigmoid(_logit(scores) / self.temperature)

    def to_json(self) -> dict[str, Any]:  # noqa: D102
        return {"temperature": self.temperature}


@dataclass(frozen=True)
class Isotonic:
    """A curve that never falls: straight between `scores` (ascending), level beyond."""

    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # noqa: D102
        return np.interp(scores, self.scores, self.values)

    def to_json(self) -> dict[str, Any]:  # noqa: D102
        return {"scores": list(self.scores), "values": list(self.values)}


@dataclass(frozen=True)
class Calibration:
    """Maps of all tags from what the network says to something closer to probabilities.

    Parameters
    ----------
    method : str
        ``"temperature"`` or ``"isotonic"``.
    maps : tuple of Temperature, Isotonic or None
        Of each tag; None where none could be fitted, and scores stay as they are.
    """

    method: Method
    maps: "tuple[Temperature | Isotonic | None, ...]"

    def column(self, tag: int, scores: Scores) -> Scores:
        """Calibrated scores of one tag, in the type of `scores` and in their order."""
        mapping = self.maps[tag]
        if mapping is None:
            return scores
        wide = scores.astype(np.float64)
        return ((1 - _OWN_SHARE) * mapping(wide) + _OWN_SHARE * wide).astype(scores.dtype)

    def of_columns(self, columns: npt.NDArray[np.intp]) -> "Calibration":
        """Calibration of some of the tags, in that order."""
        return Calibration(self.method, tuple(self.maps[column] for column in columns))

    def __call__(self, scores: Scores) -> Scores:
        """Calibrated scores [shape=(..., n_tags)]."""
        calibrated = scores.copy()
        for tag in range(len(self.maps)):
            calibrated[..., tag] = self.column(tag, scores[..., tag])
        return calibrated

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` makes the calibration of them again."""
        return {
            "schema_version": SCHEMA_VERSION,
            "method": self.method,
            "tags": [None if item is None else item.to_json() for item in self.maps],
        }

    @classmethod
    def from_json(cls, content: Any, *, n_tags: int) -> "Calibration":
        """Inverse of `to_json`.

        Raises
        ------
        ValueError
            If `content` is no calibration of `n_tags` tags.
        """
        try:
            version, method, items = (content[key] for key in ("schema_version", "method", "tags"))
            if version != SCHEMA_VERSION or method not in METHODS or len(items) != n_tags:
                raise ValueError(
                    f"method {method!r:.20}, schema version {version!r:.20}, {len(items)} tags"
                )
            make = _temperature_from if method == "temperature" else _isotonic_from
            return cls(method, tuple(None if item is None else make(item) for item in items))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a calibration: {error!r}") from None


def _temperature_from(item: dict[str, Any]) -> Temperature:
    value = float(item["temperature"])
    if not _LOWEST <= value <= _HIGHEST:
        raise ValueError(f"a temperature of {value}")
    return Temperature(value)


def _isotonic_from(item: dict[str, Any]) -> Isotonic:
    curve = Isotonic(tuple(map(float, item["scores"])), tuple(map(float, item["values"])))
    points = np.array([curve.scores, curve.values])
    if not points.size or not ((points >= 0) & (points <= 1)).all() or (np.diff(points) < 0).any():
        raise ValueError("a curve that falls, or leaves 0 to 1")
    return curve


def fit_calibration(
    labels: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.float32],
    *,
    method: Method,
    least: int = LEAST_OF_EACH,
) -> Calibration:
    """Fit the maps of all tags, on clips that the network has not learned from.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags), dtype=float32]
        What the network says, between 0 and 1.
    method : str
        ``"temperature"``: one number per tag, which divides its logits. ``"isotonic"``: of all
        curves that never fall the closest; needs more clips.
    least : int
        How many clips with a tag, and how many without it, its map needs.

    Returns
    -------
    Calibration
        Tags with fewer of either stay as they are.
    """
    fit = _fit_temperature if method == "temperature" else _fit_isotonic
    maps: list[Temperature | Isotonic | None] = []
    for tag in range(labels.shape[1]):
        positive = labels[:, tag] != 0
        n_positive = np.count_nonzero(positive)
        if min(n_positive, len(positive) - n_positive) >= max(least, 1):
            maps.append(fit(positive, scores[:, tag].astype(np.float64)))
        else:
            maps.append(None)
    return Calibration(method, tuple(maps))


def _logit(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        logits = np.log(scores) - np.log1p(-scores)
    return np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Of a large number the exponential would overflow, and one minus a small one is 1: scores near
    # 0 would become equal.
    small = np.exp(-np.abs(logits))
    values: npt.NDArray[np.float64] = np.where(logits < 0, small, 1.0) / (1 + small)
    return values


def _fit_temperature(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> Temperature:
    """Temperature of least cross-entropy: a single minimum, between slopes of other signs.

    The targets are not 0 and 1 but what so few clips can tell of them: Platt, "Probabilistic
    outputs for support vector machines" (1999). Where all clips are told apart, the best
    temperature for 0 and 1 would be zero, and every score would become 0 or 1.
    """
    n_positive = int(np.count_nonzero(positive))
    n_negative = len(positive) - n_positive
    targets = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    logits = _logit(scores)
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float(((_sigmoid(middle * logits) - targets) * logits).sum()) > 0:
            high = middle
        else:
            low = middle
    return Temperature(float(np.clip(2 / (low + high), _LOWEST, _HIGHEST)))


def _fit_isotonic(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> Isotonic:
    """Pool adjacent violators (Ayer et al., 1955), all runs that fall in each round together."""
    values, block_of = np.unique(scores, return_inverse=True)
    weights = np.bincount(block_of).astype(np.float64)
    sums = np.bincount(block_of, weights=positive)
    firsts = np.arange(len(values))
    while True:
        starts = np.flatnonzero(np.append(True, np.diff(sums / weights) > 0))
        if len(starts) == len(sums):
            break
        sums, weights = np.add.reduceat(sums, starts), np.add.reduceat(weights, starts)
        firsts = firsts[starts]
    lasts = np.append(firsts[1:], len(values)) - 1
    means = sums / weights
    # The two ends of each level; one where they are the same.
    ends = np.unique(np.concatenate([firsts, lasts]))
    level = np.searchsorted(firsts, ends, side="right") - 1
    return Isotonic(
        tuple(float(value) for value in values[ends]), tuple(float(mean) for mean in means[level])
    )


class CalibratedColumns:
    """Columns whose scores are calibrated when they are read.

    Parameters
    ----------
    columns : Columns
        What the network says.
    calibration : Calibration
        Maps of its tags.
    """

    def __init__(self, columns: Columns, calibration: Calibration) -> None:
        self._columns, self._calibration = columns, calibration

    @property
    def shape(self) -> tuple[int, int]:
        """Number of clips and of tags."""
        return self._columns.shape

    def column(self, tag: int) -> tuple[npt.NDArray[np.bool_], Scores]:
        """Labels and calibrated scores of one tag."""
        labels, scores = self._columns.column(tag)
        return labels, self._calibration.column(tag, scores)
