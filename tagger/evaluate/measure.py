"""What labels and scores tell of several tags."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.metrics.bootstrap import N_RESAMPLES, Intervals, bootstrap_intervals, plan_draws
from tagger.metrics.calibration import (
    CalibratedColumns,
    Calibration,
    Reliability,
    measure_reliability,
)
from tagger.metrics.confusion import Confusion, find_confusion
from tagger.metrics.figures import MultilabelMetrics, metrics_of_columns
from tagger.metrics.score_table import Columns


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Parameters
    ----------
    metrics : MultilabelMetrics
        The figures: arrays per tag and a summary.
    intervals : Intervals
        Bootstrap intervals of the metrics.
    reliability : Reliability, optional
        Of the scores; None where they are not all between 0 and 1.
    reliability_before : Reliability, optional
        Of the network's own scores, where they were calibrated.
    calibration : Calibration, optional
        The maps in between.
    confusion : Confusion
        Which tag is missed while which other is said.
    confusion_thresholds : str
        Whose thresholds decide there: ``"the model's"`` or ``"best F1 on these clips"``.
    """

    metrics: MultilabelMetrics
    intervals: Intervals
    reliability: Reliability | None
    reliability_before: Reliability | None
    calibration: Calibration | None
    confusion: Confusion
    confusion_thresholds: str


def measure(
    columns: Columns,
    *,
    thresholds: npt.NDArray[np.float64] | None,
    calibration: Calibration | None = None,
    artists: Sequence[str] = (),
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> Measured:
    """Measure everything that labels and scores tell.

    Parameters
    ----------
    columns : Columns
        Labels, and what the network says.
    thresholds : np.ndarray [shape=(n_tags,)], optional
        Score, after calibration, from which each tag applies; NaN where it has none.
    calibration : Calibration, optional
        What is done to the scores first.
    artists : sequence of str
        Of the clips, where they are known.
    n_draws, seed : int
        Of the bootstrap.

    Raises
    ------
    ValueError
        If there are no clips or no tags.
    """
    said: Columns = columns if calibration is None else CalibratedColumns(columns, calibration)
    given = None if thresholds is None else [None if np.isnan(x) else float(x) for x in thresholds]
    metrics = metrics_of_columns(said, thresholds=given)
    draws = plan_draws(*said.shape, artists=artists, n=n_draws, seed=seed)
    own = not np.isnan(metrics.threshold).all()
    return Measured(
        metrics=metrics,
        intervals=bootstrap_intervals(said, draws, metrics=metrics),
        reliability=measure_reliability(said),
        reliability_before=None if calibration is None else measure_reliability(columns),
        calibration=calibration,
        confusion=find_confusion(said, metrics.threshold if own else metrics.best_f1_threshold),
        confusion_thresholds="the model's" if own else "best F1 on these clips",
    )
