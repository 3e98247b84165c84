"""From scores to decisions on several tags: calibration and thresholds."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tagger.base.errors import ConfigError
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


def fit_unknown_threshold(
    labels: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.float32],
    *,
    method: Method | Literal["none"],
    precision: float | None,
) -> Decisions:
    """Fit the probability below which a clip's label is called unknown, one for all labels.

    Parameters
    ----------
    labels, scores : np.ndarray [shape=(n_clips, n_labels)]
        As of `fit_tag_decisions`; each clip has one label.
    method : str
        ``"none"``: probabilities of labels that exclude one another are not calibrated one by one.
    precision : float, optional
        Share of the answers that are to be right. By default the threshold has the highest F1: with
        *a* answers, of which *r* are right, of *n* clips, that is ``2 r / (a + n)``.

    Returns
    -------
    Decisions
        No threshold where no answer is right, or none reaches the precision.

    Raises
    ------
    ConfigError
        If a calibration is asked for.
    """
    if method != "none":
        raise ConfigError(
            f"calibration.method={method}: it is for the task multilabel; set it to none"
        )
    right = scores.argmax(axis=1) == labels.argmax(axis=1)
    order = np.argsort(-scores.max(axis=1), kind="stable")
    ranked = scores.max(axis=1)[order]
    n_right = np.cumsum(right[order])
    n_answered = np.arange(1, len(order) + 1)
    # Clips of equal probability are answered together.
    last = np.append(ranked[1:] != ranked[:-1], True)
    if precision is None:
        worth = np.where(last, 2 * n_right / (n_answered + len(order)), 0.0)
        best = int(np.argmax(worth))
        found = float(worth[best]) > 0
    else:
        reached = np.flatnonzero(last & (n_right / n_answered >= precision))
        found = bool(len(reached))
        best = int(reached[-1]) if found else 0
    return Decisions([float(ranked[best])] * labels.shape[1] if found else None)
