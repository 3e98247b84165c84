"""From scores to decisions on several tags: calibration and thresholds."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tagger.base.log import warn
from tagger.metrics.calibration import LEAST_OF_EACH, Calibration, Method, fit_calibration
from tagger.metrics.figures import best_f1_thresholds, thresholds_for_precision


@dataclass(frozen=True)
class Decisions:
    """What turns a model's clip scores into decisions.

    Parameters
    ----------
    thresholds : list of float or None, optional
        Score, after calibration, from which each tag applies; None for a task without decisions.
    calibration : Calibration, optional
        What is done to the scores first.
    """

    thresholds: list[float | None] | None = None
    calibration: Calibration | None = None


def fit_tag_decisions(
    labels: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.float32],
    *,
    method: Method | Literal["none"],
    precision: float | None,
) -> Decisions:
    """Fit calibration and thresholds, tag by tag.

    Parameters
    ----------
    labels : np.ndarray [shape=(n_clips, n_tags), dtype=uint8]
        1 where a validation clip carries a tag.
    scores : np.ndarray [shape=(n_clips, n_tags), dtype=float32]
        What the model says of it.
    method : str
        Of calibration: ``"none"``, ``"temperature"`` or ``"isotonic"``.
    precision : float, optional
        Precision that thresholds are to reach; default those with the highest F1.
    """
    calibration = None
    if method != "none":
        calibration = fit_calibration(labels, scores, method=method)
        n_left = sum(item is None for item in calibration.maps)
        if n_left:
            warn(
                f"calibration: {n_left} of {len(calibration.maps)} tags keep their scores, as "
                f"fewer than {LEAST_OF_EACH} of {len(labels)} validation clips carry them or do "
                "not; calibrate with more clips"
            )
        scores = calibration(scores)
    if precision is not None:
        return Decisions(thresholds_for_precision(labels, scores, precision), calibration)
    return Decisions(best_f1_thresholds(labels, scores), calibration)
