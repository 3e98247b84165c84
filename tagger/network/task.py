"""The contract of a task: what outputs mean in training, decisions, evaluation and report.

Its entries are in `tagger.tasks`, above all rooms: they are found by name.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tagger.base.registry import Entry, Registry
from tagger.metrics.calibration import CalibratedColumns, Calibration, Method
from tagger.metrics.columns import Columns, stacked
from tagger.metrics.decisions import Decisions
from tagger.metrics.measured import Measured, PlainFigures


class Task(Entry):
    """Contract of a task.

    A subclass sits in a module of its own in `tagger.tasks`, bound to the name ``ENTRY``, and
    imports Keras inside its methods only.
    """

    # Validation metrics that may choose the best epoch, with whether larger is better.
    monitors: ClassVar[dict[str, bool]]
    # Whether a prediction is one of the outputs, and not a decision on each.
    decides_one: ClassVar[bool] = False

    @abstractmethod
    def scores(self, logits: Any) -> Any:
        """Turn logits [shape=(..., n_outputs)] into float32 scores of the same shape."""

    @abstractmethod
    def loss(self, labels: Any, scores: Any) -> Any:
        """Mean loss of clip scores.

        Parameters
        ----------
        labels : tensor [shape=(n_clips, n_outputs), dtype=float32]
            1 where a clip carries a tag.
        scores : tensor [shape=(n_clips, n_outputs), dtype=float32]
            What the model says.
        """

    @abstractmethod
    def metrics(
        self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32]
    ) -> dict[str, float]:
        """Figures of merit of clip scores on a whole part of the data: the keys of `monitors`."""

    def decisions(
        self,
        labels: npt.NDArray[np.uint8],
        scores: npt.NDArray[np.float32],
        *,
        method: Method | Literal["none"],
        precision: float | None,
    ) -> Decisions:
        """Fit what turns scores into decisions, on validation clips.

        Parameters
        ----------
        labels, scores
            As of `metrics`.
        method : str
            Of calibration: ``"none"``, ``"temperature"`` or ``"isotonic"``.
        precision : float, optional
            Precision that thresholds are to reach; default those with the highest F1.

        Returns
        -------
        Decisions
            Unless overridden none: for a task whose outputs are no decisions of their own.
        """
        del labels, scores, method, precision
        return Decisions()

    def measure(
        self,
        columns: Columns,
        *,
        thresholds: npt.NDArray[np.float64] | None,
        calibration: Calibration | None,
        artists: Sequence[str],
        n_draws: int,
        seed: int,
    ) -> Measured:
        """Measure labels and scores, for an evaluation and its report.

        Parameters
        ----------
        columns : Columns
            Labels, and what the model says.
        thresholds : np.ndarray [shape=(n_outputs,)], optional
            Score, after calibration, from which each output applies; NaN where it has none.
        calibration : Calibration, optional
            What is done to the scores first.
        artists : sequence of str
            Of the clips, where they are known.
        n_draws, seed : int
            Of the bootstrap; 0 draws for no intervals.

        Returns
        -------
        Measured
            Unless overridden the figures of `metrics`.

        Raises
        ------
        ValueError
            If there are no clips.
        """
        del thresholds, artists, n_draws, seed
        said = columns if calibration is None else CalibratedColumns(columns, calibration)
        labels, scores = stacked(said)
        figures = self.metrics(labels, scores.astype(np.float32))
        return PlainFigures(figures, n_clips=len(labels))

    def warnings(self) -> list[str]:
        """Say what a user should know about the chosen parameters, one line each."""
        return []


TASKS: Registry[Task] = Registry("tagger.tasks", "task")
