"""Bootstrap intervals of ROC-AUC and PR-AUC, and of their differences between two models.

Clips are drawn with replacement, or whole artists where they are known, as the clips of an artist
resemble one another. A draw is a weight for each clip: scores are sorted once, and the areas of all
draws come from sums of weights in that order.

A draw repeats clips, and the copies of a positive share its rank: the average precision of draws
lies above that of the clips, the more so the rarer a tag is, and of many rare tags their quantiles
leave it out altogether. Draws tell how far a figure varies and not where it lies. Intervals are
therefore the quantiles of (draw - mean of the draws), put around the figure itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger.metrics.columns import Columns
from tagger.metrics.figures import MultilabelMetrics

N_RESAMPLES = 1000
LEVEL = 0.95
METRICS = ("roc_auc", "pr_auc")
# Fewer draws say little about the ends of an interval.
_FEWEST = 200
# Draws of fewer groups are nearly all alike, and intervals far too narrow.
FEWEST_CLUSTERS = 10
# Clips times tags times draws that are computed at most: some half a minute.
_BUDGET = 4_000_000_000
# Decisions of all tags together that are ranked for the micro averages; they are in memory at once.
_POOLED = 2_000_000
# Weights that are in memory, and sorted ones at a time.
_WEIGHTS = 25_000_000
_SORTED_AT_ONCE = 2_000_000
_DRAWS_AT_ONCE = 250

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of a set of clips.

    Parameters
    ----------
    n : int
        How many; 0 where they would take too long.
    seed : int
        Of the generator.
    clusters : np.ndarray [shape=(n_clips,), dtype=intp]
        Which clips are drawn together.
    description : str
        E.g. ``"clustered by artist, 45 artists"`` or ``"over clips"``.
    note : str
        What was left out, and why; empty if nothing.
    """

    n: int
    seed: int
    clusters: npt.NDArray[np.intp]
    description: str
    note: str = ""

    @property
    def n_clusters(self) -> int:
        """Groups of clips that are drawn together; clips where each is drawn by itself."""
        return int(self.clusters.max()) + 1 if len(self.clusters) else 0

    def weights(self, at_once: int) -> list[npt.NDArray[np.uint8]]:
        """Draw: how often each clip occurs [shape=(n_clips, at most at_once)], in parts."""
        rng = np.random.default_rng(self.seed)
        n_clusters = self.n_clusters
        parts = []
        for start in range(0, self.n, at_once):
            part = np.empty((len(self.clusters), min(at_once, self.n - start)), dtype=np.uint8)
            for draw in range(part.shape[1]):
                drawn = rng.integers(n_clusters, size=n_clusters)
                # None is ever drawn 255 times: the mean is once.
                part[:, draw] = np.bincount(drawn, minlength=n_clusters)[self.clusters]
            parts.append(part)
        return parts


def plan_draws(
    n_clips: int, n_tags: int, *, artists: Sequence[str] = (), n: int = N_RESAMPLES, seed: int = 0
) -> Draws:
    """Choose how clips are drawn, and how often.

    Parameters
    ----------
    n_clips, n_tags : int
        Size of the evaluation.
    artists : sequence of str
        Of each clip, empty where unknown; those clips are drawn by themselves. None at all where
        nothing is known.
    n : int
        Draws that are wanted; 0 for none.
    seed : int
        Of the generator: the same clips and seed give the same draws.
    """
    clusters, description = np.arange(n_clips), "over clips"
    who = f"{n_clips} clips"
    if any(artists):
        names = [artist or f"\0{number}" for number, artist in enumerate(artists)]
        clusters = np.unique(names, return_inverse=True)[1].reshape(-1)
        n_unknown = sum(not artist for artist in artists)
        who = f"{len(set(artists) - {''})} artists"
        description = f"clustered by artist, {who}"
        if n_unknown:
            description += f"; {n_unknown} clips without one by themselves"
            who += f" and {n_unknown} clips without one"
    possible = min(n, _BUDGET // max(1, n_clips * n_tags), _WEIGHTS // max(1, n_clips))
    note = ""
    if possible < n:
        size = f"{n_clips} clips x {n_tags} tags"
        if possible < min(n, _FEWEST):
            possible, note = 0, f"no intervals: {size} are too many to draw {_FEWEST} times"
        else:
            note = f"{possible} draws instead of {n}: {size} are many"
    draws = Draws(int(possible), seed, clusters, description, note)
    if n and draws.n_clusters < FEWEST_CLUSTERS:
        # Of one artist all draws are equal: the interval would have no width at all.
        note = f"no intervals: {who} are too few to draw from, {FEWEST_CLUSTERS} are needed"
        return replace(draws, n=0, note=note)
    return draws


@dataclass(frozen=True)
class Intervals:
    """Intervals around the figures of all clips: quantiles of (draw - mean of the draws).

    Parameters
    ----------
    draws : Draws
        How they were drawn.
    per_tag : dict of str to np.ndarray [shape=(n_tags, 2)]
        Lower and upper end for ``"roc_auc"`` and ``"pr_auc"``; NaN for a tag that is not scored.
    summary : dict of str to tuple of (float, float)
        For ``"roc_auc_macro"``, ``"pr_auc_macro"``, the same ``_weighted`` and ``_micro``; micro is
        missing where all decisions together are too many.
    level : float
        Share of the draws within, but for what is cut off below 0 and above 1.
    """

    draws: Draws
    per_tag: dict[str, Floats]
    summary: dict[str, tuple[float, float]]
    level: float = LEVEL

    def describe(self) -> str:
        """One line for people: how it was drawn."""
        if not self.draws.n:
            return self.draws.note or "no intervals were asked for"
        note = f"; {self.draws.note}" if self.draws.note else ""
        return (
            f"{100 * self.level:g} % bootstrap intervals, centred on the figures, "
            f"{self.draws.description} ({self.draws.n} draws, seed {self.draws.seed}{note})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values of all but the tags; null where no draw could score any."""
        return {
            "level": self.level,
            "n_draws": self.draws.n,
            "seed": self.draws.seed,
            "n_clusters": self.draws.n_clusters,
            "description": self.draws.description,
            "note": self.draws.note,
            **{
                name: None if np.isnan(ends).any() else list(ends)
                for name, ends in self.summary.items()
            },
        }


class _Sorted:
    """Decisions in the order of their scores, ready for the areas of any weights.

    Parameters
    ----------
    labels : np.ndarray [shape=(n,), dtype=bool]
        Of the decisions.
    scores : np.ndarray [shape=(n,)]
        What decides.
    clips : np.ndarray [shape=(n,), dtype=intp], optional
        Clip of each; default one decision per clip.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.bool_],
        scores: npt.NDArray[np.floating],
        clips: npt.NDArray[np.intp] | None = None,
    ) -> None:
        order = np.argsort(scores)[::-1]
        ranked, flags = scores[order], labels[order]
        self._clips = order if clips is None else clips[order]
        # Scores that are equal count together: groups. Only those with positives matter, and what
        # lies between two of them is one segment with the second.
        group = np.append(0, np.cumsum(ranked[1:] != ranked[:-1]))
        last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
        positives = np.flatnonzero(flags)
        group_of_positive = group[positives]
        self._positives = self._clips[positives]
        self._first_positives = np.append(0, np.flatnonzero(np.diff(group_of_positive)) + 1)
        useful = group_of_positive[self._first_positives]
        ends = last[useful] + 1
        self._starts = np.append(0, ends[:-1])
        self._n_until = int(ends[-1])
        # Negatives that tie with a positive.
        number = np.full(int(group[-1]) + 1, -1)
        number[useful] = np.arange(len(useful))
        tied = np.flatnonzero(~flags & (number[group] >= 0))
        self._tied = self._clips[tied]
        numbers = number[group[tied]]
        self._first_tied = np.append(0, np.flatnonzero(np.diff(numbers)) + 1)
        self._with_ties = numbers[self._first_tied] if len(tied) else numbers

    def __len__(self) -> int:
        return len(self._clips)

    def areas(self, weights: npt.NDArray[np.uint8]) -> Floats:
        """ROC-AUC and PR-AUC of each draw.

        Parameters
        ----------
        weights : np.ndarray [shape=(n_clips, n_draws), dtype=uint8]
            Times that each clip is drawn.

        Returns
        -------
        np.ndarray [shape=(2, n_draws)]
            NaN where a draw has no positives or no negatives.
        """
        n_all = _sums(weights[self._clips[: self._n_until]], self._starts)
        n_positive = _sums(weights[self._positives], self._first_positives)
        taken = np.cumsum(n_all, axis=0, dtype=np.float64)
        hits = np.cumsum(n_positive, axis=0, dtype=np.float64)
        rest = weights[self._clips[self._n_until :]].sum(axis=0, dtype=np.float64)
        all_positives = hits[-1]
        all_negatives = taken[-1] + rest - all_positives
        # Negatives below each group, and half of those within.
        below = all_negatives - (taken - hits)
        if len(self._tied):
            below[self._with_ties] += 0.5 * _sums(weights[self._tied], self._first_tied)
        with np.errstate(invalid="ignore", divide="ignore"):
            roc_auc = (n_positive * below).sum(axis=0) / (all_positives * all_negatives)
            # Before the first clip that was drawn nothing is taken, and nothing counts.
            precision = hits / np.maximum(taken, 1)
            pr_auc = (n_positive * precision).sum(axis=0) / all_positives
        pr_auc[all_negatives == 0] = np.nan
        return np.stack([roc_auc, pr_auc])


def _sums(weights: npt.NDArray[np.uint8], starts: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    # Faster than any integers, and exact: sums stay far below 2**24.
    sums: npt.NDArray[np.float32] = np.add.reduceat(weights.astype(np.float32), starts, axis=0)
    return sums


class _Weights:
    """Weights of all draws, of which some at a time are put in the order of scores."""

    def __init__(self, draws: Draws) -> None:
        n_clips = len(draws.clusters)
        self._parts = draws.weights(max(1, min(_DRAWS_AT_ONCE, _SORTED_AT_ONCE // n_clips)))

    def areas(self, ranking: _Sorted) -> Floats:
        """Areas of all draws [shape=(2, n_draws)]."""
        at_once = max(1, _SORTED_AT_ONCE // len(ranking))
        found = []
        for part in self._parts:
            for start in range(0, part.shape[1], at_once):
                # Rows that lie together are read some times faster.
                some = np.ascontiguousarray(part[:, start : start + at_once])
                found.append(ranking.areas(some))
        return np.concatenate(found, axis=1)


@dataclass(frozen=True)
class Resampled:
    """Areas of each draw.

    Parameters
    ----------
    per_tag : dict of str to np.ndarray [shape=(n_tags, n_draws)]
        By metric; NaN for a tag that is not scored, or not within a draw.
    summary : dict of str to np.ndarray [shape=(n_draws,)]
        Averages; over the tags that a draw can score.
    """

    per_tag: dict[str, Floats]
    summary: dict[str, Floats] = field(default_factory=dict)


def resample(
    columns: Sequence[Columns], draws: Draws, *, tags: npt.NDArray[np.intp]
) -> list[Resampled]:
    """Areas of each draw, of one or more models on the same clips with the same weights.

    Parameters
    ----------
    columns : sequence of Columns
        Labels and scores of each model; the labels are the same.
    draws : Draws
        How clips are drawn.
    tags : np.ndarray [dtype=intp]
        Those that have positives and negatives.
    """
    n_clips, n_tags = columns[0].shape
    weights = _Weights(draws)
    support = np.zeros(n_tags)
    tables = [{name: np.full((n_tags, draws.n), np.nan) for name in METRICS} for _ in columns]
    for tag in tags:
        for model, table in zip(columns, tables, strict=True):
            labels, scores = model.column(int(tag))
            support[tag] = np.count_nonzero(labels)
            areas = weights.areas(_Sorted(labels, scores))
            for name, values in zip(METRICS, areas, strict=True):
                table[name][tag] = values
    results = []
    for model, table in zip(columns, tables, strict=True):
        summary = {}
        for name in METRICS:
            summary[f"{name}_macro"] = _mean_over_tags(table[name][tags], np.ones(len(tags)))
            summary[f"{name}_weighted"] = _mean_over_tags(table[name][tags], support[tags])
        if 0 < n_clips * len(tags) <= _POOLED:
            pairs = [model.column(int(tag)) for tag in tags]
            pooled = _Sorted(
                np.concatenate([labels for labels, _ in pairs]),
                np.concatenate([scores for _, scores in pairs]),
                np.tile(np.arange(n_clips), len(tags)),
            )
            for name, values in zip(METRICS, weights.areas(pooled), strict=True):
                summary[f"{name}_micro"] = values
        results.append(Resampled(table, summary))
    return results


def _mean_over_tags(values: Floats, by: Floats) -> Floats:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.nansum(values * by[:, np.newaxis], axis=0) / (known * by[:, np.newaxis]).sum(
            axis=0
        )


def interval_ends(values: Floats, points: Floats, *, limits: tuple[float, float]) -> Floats:
    """Find both ends of intervals around points.

    Parameters
    ----------
    values : np.ndarray [shape=(..., n_draws)]
        NaN in a draw that says nothing.
    points : np.ndarray [shape=(...)]
        Figures of all clips.
    limits : tuple of (float, float)
        Lowest and highest value that there can be.

    Returns
    -------
    np.ndarray [shape=(..., 2)]
        NaN where no draw says anything.
    """
    ends = np.full((*points.shape, 2), np.nan)
    known = ~np.isnan(values).all(axis=-1)
    # Of nothing at all NumPy finds no quantiles.
    if known.any():
        some = values[known]
        deviations = some - np.nanmean(some, axis=-1, keepdims=True)
        shares = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
        low, high = np.nanquantile(deviations, shares, axis=-1)
        # The mean of draws that are nearly all the same lies beyond their quantiles.
        around = np.stack([np.minimum(low, 0), np.maximum(high, 0)], axis=-1)
        ends[known] = np.clip(points[known][..., np.newaxis] + around, *limits)
    return ends


def bootstrap_intervals(columns: Columns, draws: Draws, *, metrics: MultilabelMetrics) -> Intervals:
    """Intervals of ROC-AUC and PR-AUC, per tag and averaged.

    Parameters
    ----------
    columns : Columns
        Labels and scores.
    draws : Draws
        How clips are drawn; see `plan_draws`.
    metrics : MultilabelMetrics
        Figures of these columns, around which the intervals lie.
    """
    n_tags = columns.shape[1]
    if not draws.n or not len(metrics.scored):
        return Intervals(draws, {name: np.full((n_tags, 2), np.nan) for name in METRICS}, {})
    (drawn,) = resample([columns], draws, tags=metrics.scored)
    return Intervals(
        draws,
        {
            name: interval_ends(values, getattr(metrics, name), limits=(0, 1))
            for name, values in drawn.per_tag.items()
        },
        {
            name: _pair(interval_ends(values, np.array(metrics.summary[name]), limits=(0, 1)))
            for name, values in drawn.summary.items()
        },
    )


def _pair(ends: Floats) -> tuple[float, float]:
    low, high = ends
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A difference between two models, with its interval.

    Parameters
    ----------
    name : str
        Metric or tag.
    first, second : float
        What each model reaches.
    interval : tuple of (float, float)
        Of `second` - `first`, around it as those of `Intervals` are.
    p : float
        Share of draws, moved likewise, on the other side of zero, twice: what chance would do as
        often.
    """

    name: str
    first: float
    second: float
    interval: tuple[float, float]
    p: float

    @property
    def difference(self) -> float:
        """By how much the second is higher."""
        return self.second - self.first

    @property
    def real(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.interval
        return low > 0 or high < 0


def difference_of(
    name: str, points: tuple[float, float], draws: tuple[Floats, Floats]
) -> Difference:
    """Difference of one metric from the draws of both models.

    What draws add to the average precision grows with it, so that the draws of two models differ by
    more than the models do: they too are moved to the difference itself.
    """
    changes = draws[1] - draws[0]
    changes = changes[~np.isnan(changes)]
    if not len(changes):
        return Difference(name, *points, (float("nan"), float("nan")), float("nan"))
    difference = points[1] - points[0]
    moved = changes - changes.mean() + difference
    # One more than counted: no number of draws shows that something never happens.
    tails = [(np.count_nonzero(side) + 1) / (len(moved) + 1) for side in _sides(moved)]
    ends = interval_ends(changes, np.array(difference), limits=(-1, 1))
    return Difference(name, *points, _pair(ends), float(min(1.0, 2 * min(tails))))


def _sides(changes: Floats) -> Iterator[npt.NDArray[np.bool_]]:
    yield changes <= 0
    yield changes >= 0
