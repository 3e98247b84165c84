"""What a report shows: plain values and arrays, however they were come by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagger.metrics.columns import Columns
from tagger.tagging.prediction import Prediction

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Parameters
    ----------
    value : float
        NaN where it cannot be computed.
    low, high : float
        Ends of the 95 % interval; NaN where it is not known.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class HeadlineRow:
    """One line of the headline table.

    Parameters
    ----------
    name : str
        Whose figures these are.
    figures : dict of (str, str) to Estimate
        By metric and average, e.g. ``("PR-AUC", "macro")``; what is not known is left out.
    ours : bool
        Measured here, and not somebody else's figures for comparison.
    """

    name: str
    figures: Mapping[tuple[str, str], Estimate]
    ours: bool = False


@dataclass(frozen=True)
class TagFigures:
    """Figures per tag, in the order of the tags; NaN for those that cannot be computed.

    Parameters
    ----------
    n_positive : np.ndarray [shape=(n_tags,), dtype=int64]
        Clips that carry each tag.
    roc_auc, pr_auc : np.ndarray [shape=(n_tags,), dtype=float64]
        NaN for a tag that was not scored.
    more : dict of str to np.ndarray [shape=(n_tags,), dtype=float64]
        Further columns of the table, by title.
    pr_auc_low, pr_auc_high : np.ndarray [shape=(n_tags,)], optional
        Ends of the 95 % interval.
    thresholds : np.ndarray [shape=(n_tags,)], optional
        Score from which each tag is given; one half where it is NaN, or not known at all.
    """

    n_positive: npt.NDArray[np.int64]
    roc_auc: Floats
    pr_auc: Floats
    more: Mapping[str, Floats] = field(default_factory=dict)
    pr_auc_low: Floats | None = None
    pr_auc_high: Floats | None = None
    thresholds: Floats | None = None

    @property
    def scored(self) -> npt.NDArray[np.intp]:
        """Tags that have both positives and negatives."""
        return np.flatnonzero(~np.isnan(self.pr_auc))


@dataclass(frozen=True)
class Reliability:
    """How often a score of so much is right.

    Parameters
    ----------
    name : str
        Which scores, e.g. "as they come" or "calibrated".
    mean_score, positive_rate : np.ndarray [shape=(n_bins,), dtype=float64]
        Of the scores in each bin, and of their labels; NaN for empty bins.
    counts : np.ndarray [shape=(n_bins,), dtype=int64]
        Scores in each bin.
    error : float
        Expected calibration error.
    """

    name: str
    mean_score: Floats
    positive_rate: Floats
    counts: npt.NDArray[np.int64]
    error: float


@dataclass(frozen=True)
class Frame:
    """What a report shows whatever was measured; what is empty is left out of it.

    Parameters
    ----------
    title : str
        First line.
    verdict : str
        How good it is, in a sentence.
    about : str
        What was evaluated, and when.
    history : sequence of dict
        Rows of a run's metrics per epoch.
    monitor : str
        Metric that chose the best epoch.
    leakage, notes : sequence of str
        Sentences.
    card : str
        Model card, Markdown.
    versions : dict of str to str
        What was installed.
    config : str
        YAML of the run.
    """

    title: str
    verdict: str = ""
    about: str = ""
    history: Sequence[dict[str, float]] = ()
    monitor: str = "loss"
    leakage: Sequence[str] = ()
    notes: Sequence[str] = ()
    card: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""


@dataclass(frozen=True)
class Contents:
    """What a report shows of tags; what is None or empty is left out of it.

    Parameters
    ----------
    facts : sequence of (str, str)
        What was evaluated, by title.
    tags : tuple of str
        Names, in the order of all arrays.
    columns : Columns
        Labels and scores of the clips.
    per_tag : TagFigures
        Figures of each tag.
    headline : sequence of HeadlineRow
        Averages, ours first, then what they are to be compared with.
    thresholded : sequence of (str, float, float)
        Figures at a threshold: name, ours, that of saying no to everything.
    reliability : sequence of Reliability
        Curves, the scores as they come first.
    confusion : np.ndarray [shape=(n_tags, n_tags), dtype=int64], optional
        Clips that carry the tag of the row, are not given it, and are wrongly given the tag of the
        column.
    confused : sequence of (int, int, int, float)
        Pairs of tags whose errors come together most: missed, given, clips, times chance.
    confusion_thresholds : str
        Whose thresholds decide there.
    clip_names : sequence of str, optional
        File names or ids of the clips.
    taggram : callable, optional
        Scores over time of the clip at a row of `columns`; of all tags of the report at least.
    audio : callable, optional
        Audio file of the clip at a row; None if it is not at hand.
    """

    facts: Sequence[tuple[str, str]]
    tags: tuple[str, ...]
    columns: Columns
    per_tag: TagFigures
    headline: Sequence[HeadlineRow] = ()
    thresholded: Sequence[tuple[str, float, float]] = ()
    reliability: Sequence[Reliability] = ()
    confusion: npt.NDArray[np.int64] | None = None
    confused: Sequence[tuple[int, int, int, float]] = ()
    confusion_thresholds: str = ""
    clip_names: Sequence[str] | None = None
    taggram: Callable[[int], Prediction] | None = None
    audio: Callable[[int], Path | None] | None = None
