"""What labels and scores tell of several tags."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tagger.base.blocks import Section
from tagger.metrics.bootstrap import N_RESAMPLES, Intervals, bootstrap_intervals, plan_draws
from tagger.metrics.calibration import (
    CalibratedColumns,
    Calibration,
    Reliability,
    measure_reliability,
)
from tagger.metrics.columns import Columns
from tagger.metrics.confusion import Confusion, find_confusion
from tagger.metrics.figures import TAG_FIGURES, MultilabelMetrics, metrics_of_columns
from tagger.metrics.measured import Measured

if TYPE_CHECKING:
    from tagger.evaluate.evaluation import Evaluation
    from tagger.evaluate.report.clip_views import ClipViews


@dataclass(frozen=True)
class TagsMeasured(Measured):
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

    @property
    def summary(self) -> dict[str, float]:
        """Averages over tags, and numbers of clips and tags."""
        return self.metrics.summary

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """As of `tagger.metrics.measured.Measured`."""
        scored = self.metrics.scored
        return {
            **{name: _number(value) for name, value in self.summary.items()},
            "tags_not_scored": [
                tag for number, tag in enumerate(names) if number not in set(scored.tolist())
            ],
            "tags": [self._tag_to_json(number, name) for number, name in enumerate(names)],
            "intervals": self.intervals.to_json(),
            "calibration": {
                "method": "none" if self.calibration is None else self.calibration.method,
                "reliability": _reliability_to_json(self.reliability, scored),
                "reliability_before": _reliability_to_json(self.reliability_before, scored),
            },
            "confusion": {
                "thresholds": self.confusion_thresholds,
                **self.confusion.to_json(tuple(names)),
            },
        }

    def _tag_to_json(self, tag: int, name: str) -> dict[str, Any]:
        values: dict[str, Any] = {
            "tag": name,
            "n_positive": int(self.metrics.n_positive[tag]),
        }
        for figure in TAG_FIGURES:
            values[figure] = _number(float(getattr(self.metrics, figure)[tag]))
        for figure, ends in self.intervals.per_tag.items():
            pair = [_number(float(end)) for end in ends[tag]]
            values[f"{figure}_interval"] = None if None in pair else pair
        error = None if self.reliability is None else float(self.reliability.errors()[tag])
        values["ece"] = _number(error)
        return values

    def rows(self, names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
        """Figures of each tag."""
        figures = [getattr(self.metrics, name) for name in TAG_FIGURES]
        columns = zip(names, self.metrics.n_positive, *figures, strict=True)
        return ["tag", "n_positive", *TAG_FIGURES], [list(row) for row in columns]

    def table(self, evaluation: "Evaluation") -> list[list[str]]:
        """Summary, what goes with it, then a line per tag that was scored, the best first."""
        from tagger.evaluate.table import tag_paragraphs

        return tag_paragraphs(evaluation, self)

    def sections(self, evaluation: "Evaluation", clips: "ClipViews") -> list[Section]:
        """Sections on tags, clips, calibration and confusions."""
        from tagger.evaluate.report.from_tags import sections_of

        return sections_of(evaluation, self, clips)


def _reliability_to_json(
    reliability: Reliability | None, tags: npt.NDArray[np.intp]
) -> dict[str, Any] | None:
    return None if reliability is None else reliability.to_json(tags)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measure(
    columns: Columns,
    *,
    thresholds: npt.NDArray[np.float64] | None,
    calibration: Calibration | None = None,
    artists: Sequence[str] = (),
    n_draws: int = N_RESAMPLES,
    seed: int = 0,
) -> TagsMeasured:
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
    return TagsMeasured(
        metrics=metrics,
        intervals=bootstrap_intervals(said, draws, metrics=metrics),
        reliability=measure_reliability(said),
        reliability_before=None if calibration is None else measure_reliability(columns),
        calibration=calibration,
        confusion=find_confusion(said, metrics.threshold if own else metrics.best_f1_threshold),
        confusion_thresholds="the model's" if own else "best F1 on these clips",
    )
